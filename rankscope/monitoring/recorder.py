"""The recorder: a process that decomposes copies of a model's matrices and keeps the results.

It is started as a program of its own, as the workers of an analysis are, and ends with its parent:
its input ends then. The table is in order at any time: a kill costs the matrix in hand, and rows
that are in the store but not yet in the table, which the next monitor of the run puts there.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import BinaryIO, TypeAlias

from rankscope.analysis.jobs import Outcome
from rankscope.analysis.spectra_tasks import SpectraTask
from rankscope.analysis.worker import decompose
from rankscope.components.component import Component
from rankscope.errors import RankscopeError
from rankscope.monitoring.live_series import LiveSeries
from rankscope.monitoring.messages import (
    Anew,
    Answer,
    Closing,
    Copy,
    EndOfStep,
    Message,
    ModelPlan,
    Opening,
    Restarted,
)
from rankscope.monitoring.origins import Origins
from rankscope.monitoring.recorded_run import RecordedRun
from rankscope.monitoring.snapshots import release
from rankscope.pipeline.engine import Job
from rankscope.platforms import yield_processors

PATIENCE = 5.0  # seconds between two writings of the table, at least; and 20 times what one takes
TIMES = 20.0
Decompose: TypeAlias = Callable[[Sequence[Component]], Iterator[tuple[Component, Outcome]]]


def serve() -> None:
    """Carry out messages from standard input until it ends, or one says that nothing follows."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt ends
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever prints
    messages: SimpleQueue[Message | None] = SimpleQueue()
    opening = pickle.load(sys.stdin.buffer)
    yield_processors(opening.nice)
    try:
        recorder = Recorder(opening, answers)
    except (RankscopeError, OSError) as error:
        message = f"nothing is measured, since its recorder cannot open `out`: {error}"
        answers.write(pickle.dumps(Answer(warning=message, is_refused=True)))
        return
    reading = threading.Thread(
        target=_receive, args=[sys.stdin.buffer, messages, recorder], daemon=True
    )
    reading.start()
    recorder.run(messages)


def _receive(stream: BinaryIO, messages: SimpleQueue[Message | None], recorder: Recorder) -> None:
    """Take in messages as they come, so that the training never waits for this process."""
    try:
        while not isinstance(message := pickle.load(stream), Closing):
            messages.put(message)
        messages.put(message)
    except (EOFError, OSError, pickle.UnpicklingError):  # the parent was killed
        recorder.end()
        os._exit(1)


class Recorder:
    """Carries out messages.

    Parameters
    ----------
    answers
        Where to say what was done.

    Raises
    ------
    RankscopeError
        If another monitor writes into the results folder, or what is there cannot be read.
    """

    def __init__(self, opening: Opening, answers: BinaryIO) -> None:
        self._folder = Path(opening.folder)
        self._answers = answers
        self._lock = threading.Lock()
        self._run = RecordedRun(opening)
        origins = Origins(Path(opening.out), opening.run)
        self._series = LiveSeries(opening.selection.components, origins, opening.cosines)
        self._plan: ModelPlan | None = None
        self._device = opening.device
        self._written, self._took = time.monotonic(), 0.0

    def run(self, messages: SimpleQueue[Message | None]) -> None:
        """Carry out messages until `Closing`."""
        with _decompose_with(self._device) as decompose:
            while True:
                try:
                    message = messages.get(timeout=PATIENCE)
                except Empty:
                    self._write(when_due=True)
                    continue
                if message is None or isinstance(message, Closing):
                    break
                try:
                    self._carry_out(message, decompose)
                except OSError as error:
                    self._answer(Answer(warning=f"results cannot be written: {error}"))
                self._write(when_due=True)
        self.end()

    def end(self) -> None:
        """Write everything, and remove the copies."""
        try:
            self._write()
        except OSError as error:
            self._answer(Answer(warning=f"results cannot be written: {error}"))
        with self._lock:
            self._run.close()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._answer(Answer())

    def _carry_out(self, message: Message, decompose: Decompose) -> None:
        if isinstance(message, Copy):
            self._measure(message, decompose)
            return
        with self._lock:
            if isinstance(message, ModelPlan):
                self._take_plan(message)
            elif isinstance(message, Anew):
                self._go_back(message.step)
            elif isinstance(message, Restarted) and self._plan is not None:
                contents = self._plan.contents
                self._series.restart(contents, message.step, in_float64=message.in_float64)
                self._run.restart(message.step, contents, in_float64=message.in_float64)
            elif isinstance(message, EndOfStep):
                self._run.end_step(message)

    def _take_plan(self, plan: ModelPlan) -> None:
        if self._plan is None:  # a run that is continued has had restarts
            for step, in_float64 in self._run.restarts.items():
                self._series.restart(plan.contents, step, in_float64=in_float64)
        self._plan = plan
        self._run.say(plan.contents.skips, plan.contents.notes)

    def _go_back(self, step: int) -> None:
        self._series.drop_from(step)
        steps = self._run.drop_from(step)
        if steps:
            span = f"step {steps[0]}" + (f" to {steps[-1]}" if len(steps) > 1 else "")
            self._answer(Answer(warning=f"earlier records of the run at {span} are replaced"))

    def _measure(self, copy: Copy, decompose: Decompose) -> None:
        assert self._plan is not None
        group, done = self._plan.groups[copy.group], frozenset[str]()
        try:
            components, done = self._series.at(group, self._plan.contents, copy.step, copy.places)
            for component, outcome in decompose(components):
                with self._lock:
                    self._run.add(copy.step, component, outcome)
        finally:
            release(done)
            self._answer(Answer(copy.nbytes))

    def _write(self, *, when_due: bool = False) -> None:
        """Write the table; ``when_due``: only if that takes a small part of the time."""
        now = time.monotonic()
        if when_due and now - self._written < max(PATIENCE, TIMES * self._took):
            return
        with self._lock:
            self._run.write(time.process_time())
        self._written = time.monotonic()
        self._took = self._written - now

    def _answer(self, answer: Answer) -> None:
        answer = Answer(answer.nbytes, time.process_time(), answer.warning)
        with contextlib.suppress(OSError):  # the parent was killed
            self._answers.write(pickle.dumps(answer))


@contextlib.contextmanager
def _decompose_with(device: str | None) -> Iterator[Decompose]:
    """Yield what decomposes components, in any order: within the block, in this process.

    Parameters
    ----------
    device
        A torch device; None for the processor.
    """
    if device is None:
        yield lambda components: (
            (one, decompose(one.recipe, component=one.kind)) for one in components
        )
        return
    from rankscope.analysis.device_worker import DeviceWorker

    with DeviceWorker(device, jobs=1) as worker:

        def on_device(components: Sequence[Component]) -> Iterator[tuple[Component, Outcome]]:
            for job, outcome in worker.run(Job(0, SpectraTask(one, "")) for one in components):
                yield job.task.component, outcome

        yield on_device
