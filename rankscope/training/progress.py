"""Progress of a training on standard error, with a bar only on a terminal."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

SECONDS_BETWEEN_LINES = 20.0


class TrainingProgress:
    """A bar with remaining time, loss and speed on a terminal; elsewhere a line now and then.

    Of several processes, all but one are ``quiet``.
    """

    def __init__(self, *, start: int, steps: int, quiet: bool = False) -> None:
        self._steps, self._quiet = steps, quiet
        self.tokens_per_second = 0.0
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._last_line = time.monotonic()
        self._bar = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=self._console,
            disable=quiet or not sys.stderr.isatty(),
            transient=True,
        )
        self._task = self._bar.add_task("", total=steps, completed=start)

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def update(self, step: int, *, loss: float) -> None:
        """Show how far the training is; ``loss`` in nats per token."""
        shown = f"loss {loss:.3f}  {self.tokens_per_second:,.0f} tokens/s"
        self._bar.update(self._task, completed=step, description=shown)
        waited = time.monotonic() - self._last_line
        if self._bar.disable and waited >= SECONDS_BETWEEN_LINES:
            self.say(f"step {step}/{self._steps}  {shown}")

    def say(self, line: str) -> None:
        """Print one line above the bar."""
        self._last_line = time.monotonic()
        if self._quiet:
            return
        with suppress(OSError):  # a reader that has left is no reason to stop training
            self._console.print(line, markup=False)


class Clock:
    """Seconds of training, including those before a resumption, and speed."""

    def __init__(self, *, seconds: float, step: int) -> None:
        self._began = time.monotonic() - seconds
        self._last_time, self._last_step = time.monotonic(), step

    def seconds(self) -> float:
        """Seconds since the run began, without interruptions."""
        return time.monotonic() - self._began

    def steps_per_second(self, step: int) -> float:
        """Speed since the last call, or since the clock was made."""
        now = time.monotonic()
        speed = (step - self._last_step) / max(now - self._last_time, 1e-9)
        self._last_time, self._last_step = now, step
        return speed
