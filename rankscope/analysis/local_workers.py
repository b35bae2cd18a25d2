"""The local engine: single-threaded worker processes on this machine."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType

from rankscope.analysis.copied_process import (
    KEPT_BYTES,
    ONE_THREAD,
    CopiedProcess,
    copied,
    may_be_copied,
)
from rankscope.analysis.jobs import (
    CHUNK_JOBS,
    CHUNK_WORK,
    AnalysisJob,
    Outcome,
    in_chunks,
    sent,
)
from rankscope.checkpoints.limits import size_text
from rankscope.pipeline.engine import Failure
from rankscope.platforms import FORKS, INHERITS_DESCRIPTORS

# Chunks queued at a worker, so that it does not wait while results are written.
AHEAD_CHUNKS = 2  # at least; more while they are small:
AHEAD_WORK = 10 * CHUNK_WORK

ENVIRONMENT = dict.fromkeys(ONE_THREAD, "1") | dict.fromkeys(
    ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(KEPT_BYTES)
)


@dataclass(frozen=True)
class _Chunk:
    jobs: list[AnalysisJob]
    is_retry: bool = False

    @cached_property
    def work(self) -> float:
        return sum(job.task.work for job in self.jobs)


class LocalWorkers:
    """A pool of single-threaded worker processes, for a ``with`` block.

    There are ``jobs`` processes with one thread each: faster for the matrices of small models than
    one process with many threads, and the bits of a result do not depend on ``jobs``.
    """

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._programs: list[_Program] = []
        self._workers: list[_Worker] = []

    def start(self) -> None:
        """Start all workers now, as copies of this process if that is possible.

        Otherwise they start when there is work, and load again what this process has loaded.
        """
        self._add(self._jobs, copies=may_be_copied())

    def __enter__(self) -> LocalWorkers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if any(worker.at_hand for worker in self._workers):
            for program in self._programs:
                program.kill()
        for worker in self._workers:
            worker.connection.close()  # this ends an idle process
        for program in self._programs:
            program.wait()

    def run(self, jobs: Iterable[AnalysisJob]) -> Iterator[tuple[AnalysisJob, Outcome]]:
        """Decompose every job's recipe; results come as they are ready, in any order.

        When a worker dies, nothing is lost: its chunks are tried once more, job by job, and a job
        whose worker dies again is a failure.
        """
        chunks, again = map(_Chunk, in_chunks(jobs)), deque[_Chunk]()
        while True:
            self._hand_out(chunks, again)
            busy = {worker.connection: worker for worker in self._workers if worker.at_hand}
            if not busy:
                return
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                outcomes = worker.receive()
                if outcomes is not None:
                    chunk = worker.at_hand.popleft()
                    yield from zip((job for job in chunk.jobs), outcomes, strict=True)
                    continue
                self._workers.remove(worker)
                worker.connection.close()
                # It was working on the first of its chunks; the others are innocent.
                lost, *untouched = worker.at_hand
                again.extend(untouched)
                if lost.is_retry:
                    (job,) = lost.jobs
                    yield job, _died_twice(job)
                else:
                    again.extend(_Chunk([job], is_retry=True) for job in lost.jobs)

    def _add(self, count: int, *, copies: bool = False) -> None:
        for size in [count] if FORKS else [1] * count:
            self._programs.append(_Program(size, is_copy=copies))
            self._workers += self._programs[-1].workers

    def _hand_out(self, chunks: Iterator[_Chunk], again: deque[_Chunk]) -> None:
        """Give chunks to the workers that have fewest, and start missing workers."""
        while True:
            ready = [worker for worker in self._workers if worker.takes_more]
            idle = [worker for worker in ready if not worker.at_hand]
            is_short = len(self._workers) < self._jobs and not idle
            if not (ready or is_short):
                return
            chunk = again.popleft() if again else next(chunks, None)
            if chunk is None:
                return
            if is_short:
                self._add(self._jobs - len(self._workers) if FORKS else 1)
                ready = self._workers
            min(ready, key=lambda worker: len(worker.at_hand)).send(chunk)


def _died_twice(job: AnalysisJob) -> Failure:
    """What to say about a job that ended two processes, as the system does if memory runs out."""
    from rankscope.components.memory import least_memory  # it loads numpy

    tensors = job.task.recipe.tensors()
    takes = f", of which it takes at least {size_text(least_memory(tensors))}" if tensors else ""
    message = f"its worker process died twice; perhaps memory ran out{takes}: use fewer `jobs`"
    return Failure("worker-died", message)


@dataclass
class _Worker:
    """The connection to one worker process, and the chunks queued there."""

    connection: Connection
    at_hand: deque[_Chunk] = field(default_factory=deque)

    @property
    def takes_more(self) -> bool:
        """Whether it should queue one more chunk and the connection has room for it."""
        if len(self.at_hand) < AHEAD_CHUNKS:
            return True
        count = sum(len(chunk.jobs) for chunk in self.at_hand)
        return count <= CHUNK_JOBS and sum(chunk.work for chunk in self.at_hand) < AHEAD_WORK

    def send(self, chunk: _Chunk) -> None:
        """Hand over a chunk; that the process has died shows when its result is awaited."""
        self.at_hand.append(chunk)
        with contextlib.suppress(OSError):
            self.connection.send(list(map(sent, chunk.jobs)))

    def receive(self) -> list[Outcome] | None:
        """Results of the first chunk; None if the process died."""
        try:
            return list(self.connection.recv())
        except (EOFError, OSError):
            return None


class _Program:
    """A program that runs `rankscope.analysis.worker` for ``count`` workers.

    It loads numpy once, unless it is a copy of this process, and forks for several. It leads a
    process group then, so that all can be ended together.
    """

    def __init__(self, count: int, *, is_copy: bool = False) -> None:
        pairs = [socket.socketpair() for _ in range(count)]
        theirs = [their_end for _, their_end in pairs]
        self._process: subprocess.Popen[bytes] | CopiedProcess
        if is_copy:
            self._process = copied([their_end.fileno() for their_end in theirs])
        else:
            self._process = _inheriting(theirs) if INHERITS_DESCRIPTORS else _receiving(theirs[0])
        for their_end in theirs:
            their_end.close()
        self.workers = [_Worker(Connection(our_end.detach())) for our_end, _ in pairs]

    def kill(self) -> None:
        """End its processes at once."""
        if isinstance(self._process, subprocess.Popen) and not FORKS:
            self._process.kill()
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):  # all have ended already
            os.killpg(self._process.pid, signal.SIGKILL)

    def wait(self) -> None:
        """Wait until its first process, which waits for the others, has ended."""
        self._process.wait()


def _inheriting(connections: list[socket.socket]) -> subprocess.Popen[bytes]:
    """Start the program with these as its open files."""
    theirs = [connection.fileno() for connection in connections]
    return subprocess.Popen(
        [sys.executable, "-c", f"from rankscope.analysis.worker import serve; serve({theirs})"],
        pass_fds=theirs,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env=_environment(),
        process_group=0,
    )


def _receiving(connection: socket.socket) -> subprocess.Popen[bytes]:
    """Start the program and tell it where to connect, since Windows lets nothing be inherited."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from rankscope.analysis.worker import serve_shared; serve_shared()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=_environment(),
    )
    assert process.stdin is not None
    with contextlib.suppress(OSError), process.stdin:  # if it has died, the connection shows it
        process.stdin.write(connection.share(process.pid))  # type: ignore[attr-defined,unused-ignore]
    return process


def _environment() -> dict[str, str]:
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    return os.environ | ENVIRONMENT | {"PYTHONPATH": path}
