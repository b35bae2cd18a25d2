"""How a training ends: the request to stop after a step, and the reason in the end."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Literal

Ending = Literal["complete", "stopped", "interrupted", "unwritable", "non-finite"]


@dataclass(frozen=True)
class TrainingOutcome:
    """How a training ended.

    Attributes
    ----------
    step
        Optimizer steps completed.
    ending
        ``complete``: all steps are done. ``stopped``: time was up. ``interrupted``: a signal came.
        ``unwritable``: the run's folder could not be written. ``non-finite``: too many losses in a
        row were NaN or infinite. All but the first can be resumed from what was saved.
    message
        The same as one line for a person.
    signal
        Number of the signal that interrupted.
    """

    step: int
    ending: Ending
    message: str
    signal: int | None = None


class StopRequest:
    """Whether the training should save and end: because of a signal, or because time is up."""

    def __init__(self, *, max_minutes: float | None = None) -> None:
        self.signal: int | None = None
        self._deadline = None if max_minutes is None else time.monotonic() + 60 * max_minutes

    def is_due(self) -> bool:
        """Whether the training should end after the present step."""
        out_of_time = self._deadline is not None and time.monotonic() >= self._deadline
        return self.signal is not None or out_of_time

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take SIGINT and SIGTERM as requests; a second signal ends the process at once.

        Python lets only the main thread do this: in other threads signals keep their meaning.
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
