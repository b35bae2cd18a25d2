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
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import BinaryIO

from rankscope.durable import write_file
from rankscope.monitoring.decomposing import Decompose, decompose_with
from rankscope.monitoring.messages import (
    Anew,
    Answer,
    Closing,
    EndOfStep,
    Measure,
    Message,
    Opening,
    Restarted,
    Said,
)
from rankscope.monitoring.recorded_run import RecordedRun
from rankscope.monitoring.snapshots import release

PATIENCE = 5.0  # seconds between two writings of the table, at least; and 20 times what one takes
TIMES = 20.0
NICEST = 19  # so that a training that needs all processors keeps them


def serve() -> None:
    """Carry out messages from standard input until it ends, or one says that nothing follows."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt ends
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with contextlib.suppress(AttributeError, OSError):
        os.nice(NICEST)
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever prints
    messages: SimpleQueue[Message | None] = SimpleQueue()
    opening = pickle.load(sys.stdin.buffer)
    recorder = Recorder(opening, answers)
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
    """

    def __init__(self, opening: Opening, answers: BinaryIO) -> None:
        self._folder = Path(opening.folder)
        self._answers = answers
        self._lock = threading.Lock()
        self._run = RecordedRun(opening)
        self._device = opening.device
        self._written, self._took = time.monotonic(), 0.0

    def run(self, messages: SimpleQueue[Message | None]) -> None:
        """Carry out messages until `Closing`."""
        with decompose_with(self._device) as decompose:
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
        if isinstance(message, Measure):
            self._measure(message, decompose)
            return
        with self._lock:
            if isinstance(message, Anew):
                steps = self._run.drop_from(message.step)
                if steps:
                    span = f"step {steps[0]}" + (f" to {steps[-1]}" if len(steps) > 1 else "")
                    warning = f"what was recorded of the run at {span} is replaced"
                    self._answer(Answer(warning=warning))
            elif isinstance(message, Restarted):
                self._run.restart(message.step, message.names)
            elif isinstance(message, Said):
                self._run.say(message.skips, message.notes)
            elif isinstance(message, EndOfStep):
                self._run.end_step(message, time.process_time())

    def _measure(self, message: Measure, decompose: Decompose) -> None:
        try:
            for component, outcome in decompose(message.components):
                with self._lock:
                    self._run.add(message.step, component, outcome)
            for copy, kept in message.keep:
                with contextlib.suppress(FileNotFoundError):
                    write_file(Path(kept), Path(copy).read_bytes())
        finally:
            release(message.release)
            self._answer(Answer(message.nbytes))

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
