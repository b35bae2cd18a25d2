"""Engines: who decomposes the sources: processes of this machine, a Dask cluster, or a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from rankscope.analysis.plan import Task
from rankscope.analysis.worker import Failure
from rankscope.spectra.spectrum import Spectrum

CHUNK_WORK = 2e8  # operations; some 20 ms, against which sending a chunk costs nothing
CHUNK_JOBS = 64  # so that a chunk always fits into the buffer of a connection

Outcome = list[Spectrum] | Failure


@dataclass(frozen=True)
class Job:
    """A task, with the number of the plan that it belongs to."""

    plan: int
    task: Task


class Engine(Protocol):
    """What decomposes sources while its ``with`` block lasts."""

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Decompose every job's source; results come as they are ready, in no order."""


def in_chunks(jobs: Iterable[Job]) -> Iterator[list[Job]]:
    """Group small jobs, so that each chunk is worth its sending."""
    chunk: list[Job] = []
    work = 0.0
    for job in jobs:
        chunk.append(job)
        work += job.task.component.source.work
        if work >= CHUNK_WORK or len(chunk) == CHUNK_JOBS:
            yield chunk
            chunk, work = [], 0.0
    if chunk:
        yield chunk


def _local(jobs: int) -> AbstractContextManager[Engine]:
    from rankscope.analysis.local_workers import LocalWorkers

    return LocalWorkers(jobs)


def _dask(jobs: int) -> AbstractContextManager[Engine]:
    from rankscope.analysis.dask_workers import DaskWorkers

    return DaskWorkers(jobs)


def _cuda(jobs: int) -> AbstractContextManager[Engine]:
    from rankscope.analysis.device_worker import DeviceWorker

    return DeviceWorker("cuda", jobs)


# Name → engine with so many workers.
ENGINES: Mapping[str, Callable[[int], AbstractContextManager[Engine]]] = {
    "local": _local,
    "dask": _dask,
    "cuda": _cuda,
}
