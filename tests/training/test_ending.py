from __future__ import annotations

import signal
import threading

import pytest

from rankscope.training.ending import StopRequest


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_a_request(number: int) -> None:
    stop = StopRequest()
    with stop.listening():
        assert not stop.is_due()
        signal.raise_signal(number)
        assert stop.is_due()
        assert stop.signal == number


def test_after_the_first_signal_a_second_one_ends_the_process() -> None:
    stop = StopRequest()
    with stop.listening():
        signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_DFL


def test_time_that_is_up_is_a_request() -> None:
    assert StopRequest(max_minutes=0.0).is_due()
    assert not StopRequest(max_minutes=1.0).is_due()


def test_outside_the_main_thread_signals_keep_their_meaning() -> None:
    before = signal.getsignal(signal.SIGTERM)
    during = []

    def listen() -> None:
        with StopRequest().listening():
            during.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
    assert during == [before]
