import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import pytest

from rankscope.analysis import worker
from rankscope.analysis.jobs import CHUNK_JOBS, AnalysisJob
from rankscope.analysis.local_workers import LocalWorkers
from rankscope.analysis.spectra_tasks import SpectraTask
from rankscope.checkpoints.tensors import StoredTensor
from rankscope.components.selection import Component
from rankscope.errors import RankscopeError
from rankscope.pipeline.engine import Failure, Job
from rankscope.spectra.matrices import Dense


@dataclass(frozen=True)
class Constant:
    """A source without a file: a multiple of the identity, or a fault."""

    value: float
    fault: str = ""

    def read(self) -> Dense:
        if self.fault == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "tells its process":
            return Dense.stored(float(os.getpid()) * np.eye(3))
        if self.fault == "unreadable":
            raise RankscopeError("is not there", path="file", tensor="w")
        if self.fault == "huge":
            raise MemoryError
        return Dense.stored(self.value * np.eye(3))

    def tensors(self) -> tuple[StoredTensor, ...]:
        stored = StoredTensor("file", "w", "float32", (8, 8), 0)
        return (stored,) if self.fault == "dies" else ()

    @property
    def work(self) -> float:
        return 1.0


def jobs(*sources: Constant) -> list[AnalysisJob]:
    return [
        Job(i, SpectraTask(Component("weight", 0, "q", None, f"w{i}", source), str(i)))
        for i, source in enumerate(sources)
    ]


def outcomes(workers: int, *sources: Constant) -> dict[int, object]:
    with LocalWorkers(workers) as pool:
        return {job.plan: outcome for job, outcome in pool.run(iter(jobs(*sources)))}


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.slow
def test_every_job_has_one_result(workers: int) -> None:
    count = 2 * CHUNK_JOBS + 3
    found = outcomes(workers, *(Constant(float(i + 1)) for i in range(count)))
    assert [found[i][0].spectrum.values[0] for i in range(count)] == [i + 1 for i in range(count)]  # type: ignore[index]


def test_no_jobs_start_no_worker() -> None:
    with LocalWorkers(2) as pool:
        assert list(pool.run([])) == []
        assert pool._workers == []


def test_an_unreadable_source_is_a_failure_with_its_reason() -> None:
    found = outcomes(1, Constant(1.0, "unreadable"), Constant(2.0), Constant(1.0, "huge"))
    assert found[0] == Failure("unreadable", "is not there", "file", "w")
    assert found[1][0].spectrum.values[0] == 2  # type: ignore[index]
    assert isinstance(found[2], Failure) and found[2].reason == "too-large"


@pytest.mark.slow
def test_a_job_that_kills_its_worker_takes_no_other_along() -> None:
    sources = [Constant(float(i + 1)) for i in range(150)]
    sources[70] = Constant(0.0, "dies")
    found = outcomes(2, *sources)
    assert len(found) == 150
    assert isinstance(found[70], Failure) and found[70].reason == "worker-died"
    assert "of which it takes at least " in found[70].message
    assert sum(isinstance(one, Failure) for one in found.values()) == 1


def is_running(process: int) -> bool:
    """Whether there is such a process, and not only its exit status."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="asks the kernel by its files")
@pytest.mark.parametrize("started_early", [True, False])
@pytest.mark.parametrize("leaves_early", [True, False])
@pytest.mark.slow
def test_leaving_ends_the_workers(started_early: bool, leaves_early: bool) -> None:
    processes: set[int] = set()
    one = Constant(1.0, "tells its process")

    def iter_jobs() -> Iterator[Job]:
        while len(processes) < 3:
            yield from jobs(one)

    with LocalWorkers(3) as pool:
        if started_early:
            pool.start()
        for _, outcome in pool.run(iter_jobs()):
            assert isinstance(outcome, list)
            processes.add(int(outcome[0].spectrum.values[0]))
            if leaves_early and len(processes) == 3:
                break
        assert all(map(is_running, processes))
    patience = time.monotonic() + 5
    while any(map(is_running, processes)):
        assert time.monotonic() < patience


def test_chunks_are_taken_in_while_large_results_wait_to_be_fetched(monkeypatch):
    large = bytes(2**22)  # far more than a connection holds on its way
    monkeypatch.setattr(worker, "decompose_all", lambda chunk: [large])
    monkeypatch.setattr(worker, "SECONDS_TO_END", 0)
    ended = threading.Event()
    monkeypatch.setattr(worker.os, "_exit", lambda code: ended.set())
    ours, theirs = (Connection(end.detach()) for end in socket.socketpair())
    process = threading.Thread(target=worker._answer, args=[theirs], daemon=True)
    process.start()

    def send_three():
        for _ in range(3):
            ours.send([large])

    caller = threading.Thread(target=send_three, daemon=True)
    caller.start()
    caller.join(timeout=20)
    assert not caller.is_alive()
    assert [len(ours.recv()[0]) for _ in range(3)] == [2**22] * 3
    ours.close()
    assert ended.wait(timeout=20)
    process.join(timeout=20)
    assert not process.is_alive()
