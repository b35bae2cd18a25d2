"""The contract between an analysis and its engines: jobs go out, outcomes come back.

Loads nothing but the standard library, so that worker processes can be started before anything else
is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from rankscope.analysis.plan import Task
    from rankscope.spectra.spectrum import Spectrum

CHUNK_WORK = 2e8  # operations; some 20 ms, against which sending a chunk costs nothing
CHUNK_JOBS = 64  # so that a chunk always fits into the buffer of a connection


@dataclass(frozen=True)
class Failure:
    """Why a recipe has no spectrum."""

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
    """What decomposes recipes while its ``with`` block lasts."""

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Decompose every job's recipe; results come as they are ready, in no order."""


def in_chunks(jobs: Iterable[Job]) -> Iterator[list[Job]]:
    """Group small jobs, so that each chunk is worth its sending."""
    chunk: list[Job] = []
    work = 0.0
    for job in jobs:
        chunk.append(job)
        work += job.task.component.recipe.work
        if work >= CHUNK_WORK or len(chunk) == CHUNK_JOBS:
            yield chunk
            chunk, work = [], 0.0
    if chunk:
        yield chunk
