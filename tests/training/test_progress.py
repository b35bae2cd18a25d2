from __future__ import annotations

import time

import pytest

from rankscope.training import progress
from rankscope.training.progress import Clock, TrainingProgress


def test_without_a_terminal_there_is_a_plain_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    with TrainingProgress(start=0, steps=100) as shown:
        shown.tokens_per_second = 1234.4
        shown.update(7, loss=2.5)
    said = capsys.readouterr()
    assert said.err == "step 7/100  loss 2.500  1,234 tokens/s\n"
    assert said.out == ""


def test_lines_are_not_more_frequent_than_that(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingProgress(start=0, steps=100) as shown:
        for step in range(50):
            shown.update(step, loss=2.5)
    assert capsys.readouterr().err == ""


def test_a_line_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with TrainingProgress(start=0, steps=1) as shown:
        shown.say("[bold]/a/run[x]: " + "long " * 60)
    assert capsys.readouterr().err == "[bold]/a/run[x]: " + "long " * 60 + "\n"


def test_the_clock_counts_on_from_the_time_before() -> None:
    clock = Clock(seconds=100.0, step=7)
    time.sleep(0.02)
    assert 100.02 <= clock.seconds() < 110
    assert 0 < clock.steps_per_second(8) <= 1 / 0.02
