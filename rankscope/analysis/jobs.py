"""Jobs of an analysis: recipes go out; spectra with metrics, comparisons or failures come back.

Loads nothing but the standard library, so that worker processes can be started before anything else
is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

from rankscope.groups import iter_groups
from rankscope.pipeline.engine import Engine, Failure, Job

if TYPE_CHECKING:
    from rankscope.analysis.spectra_tasks import SpectraTask
    from rankscope.analysis.subspace_plans import SubspaceTask
    from rankscope.analysis.subspace_series import Compared
    from rankscope.checkpoints.file_states import FileStates
    from rankscope.results.measured import Measured

CHUNK_WORK = 2e8  # operations; about 20 ms, so that sending a chunk costs little
CHUNK_JOBS = 64  # so that a chunk always fits into the buffer of a connection
LEAST_WORK = CHUNK_WORK / CHUNK_JOBS  # what reading and sending even the smallest job costs

# One matrix per head where there are heads, or one comparison per pair of steps.
Outcome: TypeAlias = "list[Measured] | list[Compared] | Failure"
AnalysisJob: TypeAlias = "Job[SpectraTask] | Job[SubspaceTask]"
AnalysisEngine: TypeAlias = "Engine[Any, Any]"  # each kind of task has a different result


def sent(job: AnalysisJob) -> tuple[Any, FileStates, str]:
    """What a worker needs for a job: the recipe, the files that it reads, and the component."""
    return job.task.recipe, job.task.files, job.task.component.kind


def in_chunks(jobs: Iterable[AnalysisJob]) -> Iterator[list[AnalysisJob]]:
    """Group small jobs, so that each chunk is worth sending."""
    return iter_groups(jobs, lambda job: max(job.task.work, LEAST_WORK), size=CHUNK_WORK)
