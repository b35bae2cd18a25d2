"""The contract between a pipeline and its engines: jobs go out, results or failures come back.

Loads nothing but the standard library, so that worker processes can be started before anything else
is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from rankscope.checkpoints.file_states import FileStates


class Task(Protocol):
    """One thing to compute."""

    @property
    def key(self) -> str:
        """Digest of everything that the result depends on."""

    @property
    def work(self) -> float:
        """How much there is to do, compared with the other tasks of its plan; positive."""

    @property
    def files(self) -> FileStates:
        """Every file that is read, with its state when it was planned."""


TaskT = TypeVar("TaskT", bound=Task)
ResultT = TypeVar("ResultT")
ResultT_co = TypeVar("ResultT_co", covariant=True)


@dataclass(frozen=True)
class Failure:
    """Why a task has no result."""

    reason: str
    message: str
    path: str = ""
    tensor: str = ""


@dataclass(frozen=True)
class Job(Generic[TaskT]):
    """A task, with the number of the plan that it belongs to."""

    plan: int
    task: TaskT


class Engine(Protocol[TaskT, ResultT_co]):
    """Carries out tasks within its ``with`` block."""

    def run(self, jobs: Iterable[Job[TaskT]]) -> Iterator[tuple[Job[TaskT], ResultT_co | Failure]]:
        """Carry out every job's task; results come as they are ready, in any order."""
