"""Engines: who decomposes the sources: processes of this machine, a Dask cluster, or a GPU.

Loads nothing but the standard library, so that worker processes can be started before anything else
is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from rankscope.errors import RankscopeError

if TYPE_CHECKING:
    from rankscope.analysis.plan import Task
    from rankscope.spectra.spectrum import Spectrum

CHUNK_WORK = 2e8  # operations; some 20 ms, against which sending a chunk costs nothing
CHUNK_JOBS = 64  # so that a chunk always fits into the buffer of a connection


@dataclass(frozen=True)
class Failure:
    """Why a source has no spectrum."""

    reason: str
    message: str
    path: str = ""
    tensor: str = ""


Outcome: TypeAlias = "list[Spectrum] | Failure"


@dataclass(frozen=True)
class Job:
    """A task, with the number of the plan that it belongs to."""

    plan: int
    task: Task


class Engine(Protocol):
    """What decomposes sources while its ``with`` block lasts."""

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Decompose every job's source; results come as they are ready, in no order."""


def engine_of(name: str, jobs: int | None = None) -> AbstractContextManager[Engine]:
    """Engine of this name, with as many workers as there are processors unless ``jobs`` says.

    Raises
    ------
    RankscopeError
        If there is none of this name.
    """
    if name not in ENGINES:
        raise RankscopeError(f"{name!r} is no engine: known are {', '.join(ENGINES)}")
    return ENGINES[name](jobs or processors())


def processors() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
