"""Ending a training at the end of a step instead of in the middle of one."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Whether the training is to save and end: asked by a signal, or because time is up."""

    def __init__(self, *, max_minutes: float | None = None) -> None:
        self.signal: int | None = None
        self._deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes

    def is_due(self) -> bool:
        """Whether the training is to end after the present step."""
        out_of_time = self._deadline is not None and time.monotonic() >= self._deadline
        return self.signal is not None or out_of_time

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM as requests; a second one ends the process at once.

        Only the main thread can: elsewhere signals keep their meaning.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self._request) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        for again in (signal.SIGINT, signal.SIGTERM):
            signal.signal(again, signal.SIG_DFL)
