import os
import signal
from dataclasses import dataclass

import numpy as np
import pytest

from rankscope.analysis.engines import CHUNK_JOBS, Job
from rankscope.analysis.local_workers import LocalWorkers
from rankscope.analysis.plan import Task
from rankscope.analysis.worker import Failure
from rankscope.checkpoints.tensors import StoredTensor
from rankscope.components.selection import Component
from rankscope.errors import RankscopeError
from rankscope.spectra.matrices import Dense


@dataclass(frozen=True)
class Constant:
    """A source without a file: a multiple of the identity, or a fault."""

    value: float
    fault: str = ""

    def read(self) -> Dense:
        if self.fault == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "unreadable":
            raise RankscopeError("is not there", path="file", tensor="w")
        if self.fault == "huge":
            raise MemoryError
        return Dense.stored(self.value * np.eye(3))

    def tensors(self) -> tuple[StoredTensor, ...]:
        return ()

    @property
    def work(self) -> float:
        return 1.0


def jobs(*sources: Constant) -> list[Job]:
    return [
        Job(i, Task(Component("weight", 0, "q", None, f"w{i}", source), str(i)))
        for i, source in enumerate(sources)
    ]


def outcomes(workers: int, *sources: Constant) -> dict[int, object]:
    with LocalWorkers(workers) as pool:
        return {job.plan: outcome for job, outcome in pool.run(iter(jobs(*sources)))}


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_every_job_has_one_result(workers: int) -> None:
    count = 2 * CHUNK_JOBS + 3
    found = outcomes(workers, *(Constant(float(i + 1)) for i in range(count)))
    assert [found[i][0].values[0] for i in range(count)] == [i + 1 for i in range(count)]  # type: ignore[index]


def test_no_jobs_start_no_worker() -> None:
    with LocalWorkers(2) as pool:
        assert list(pool.run([])) == []
        assert pool._workers == []


def test_a_source_that_cannot_be_read_is_a_failure_with_its_reason() -> None:
    found = outcomes(1, Constant(1.0, "unreadable"), Constant(2.0), Constant(1.0, "huge"))
    assert found[0] == Failure("unreadable", "is not there", "file", "w")
    assert found[1][0].values[0] == 2  # type: ignore[index]
    assert isinstance(found[2], Failure) and found[2].reason == "too-large"


def test_a_job_that_kills_its_worker_takes_no_other_along() -> None:
    sources = [Constant(float(i + 1)) for i in range(150)]
    sources[70] = Constant(0.0, "dies")
    found = outcomes(2, *sources)
    assert len(found) == 150
    assert isinstance(found[70], Failure) and found[70].reason == "worker-died"
    assert sum(isinstance(one, Failure) for one in found.values()) == 1


def test_leaving_early_ends_the_workers() -> None:
    with LocalWorkers(2) as pool:
        next(pool.run(iter(jobs(*(Constant(1.0) for _ in range(200))))))
        processes = [worker._process for worker in pool._workers]
        assert processes
    assert all(process.poll() is not None for process in processes)
