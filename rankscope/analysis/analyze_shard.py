"""One shard of an analysis: its share is computed and stored, and no table is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankscope.analysis.engines import OpenEngine, engine_of
from rankscope.analysis.jobs import AnalysisEngine
from rankscope.analysis.plan import SpectraPlans, count_steps
from rankscope.analysis.question import Question
from rankscope.analysis.request import Selection
from rankscope.analysis.shard_stores import ShardStore
from rankscope.analysis.shards import Shard, ShardPlans
from rankscope.analysis.spectra_files import SpectraFiles
from rankscope.analysis.subspace_plans import SubspaceFiles, SubspacePlans
from rankscope.checkpoints.survey import Survey
from rankscope.errors import WrongSettingError
from rankscope.pipeline.call_results import CallResult, sweep_results
from rankscope.pipeline.calls import carried_out, require_out, require_steps
from rankscope.pipeline.execution import Executed, Meter, Plans, Progress, Store
from rankscope.results.columns import MEASURED

if TYPE_CHECKING:
    import pandas as pd

    from rankscope.results.spectra_store import Entry


@dataclass(frozen=True)
class ShardResult(CallResult):
    """What a shard did, and what is not done yet.

    Attributes
    ----------
    shard
        The shard.
    measurements
        Number of results of its share that the store now has.
    tasks
        Number of tasks by shard; those without any are left out.
    missing
        Number of tasks by shard whose results are not in the store; final only if no other shard is
        running.
    """

    shard: Shard
    measurements: int
    tasks: Mapping[int, int]
    missing: Mapping[int, int]

    @property
    def measured(self) -> int:
        """Number of measurements."""
        return self.measurements

    @property
    def table(self) -> pd.DataFrame:
        """No rows: the table is made by the call without a shard."""
        from rankscope.results.results import table_of

        return table_of(())


def answer_share(
    question: Question,
    shard: Shard,
    *,
    out: Path | None,
    engine: OpenEngine | None = None,
    progress: Progress | None = None,
) -> ShardResult:
    """Compute and store a shard's share of the answer to a question.

    Raises
    ------
    WrongSettingError
        If there is no ``out`` to store it in.
    """
    selection = question.selection()
    if out is None:
        raise WrongSettingError("`shard` stores what it computes: choose a folder for `out`")
    found = question.survey()
    count = sum(count_steps(run, selection) for run in found.runs)
    require_steps(count, found.runs)
    require_out(out, found.runs)
    sweep_results(out)
    with engine or engine_of("local") as workers:
        share = _Share(found, selection, shard, out, workers, progress)
        share.spectra(count)
        if selection.subspaces is not None:
            share.subspaces()
    return share.result()


class _Share:
    """Both kinds of plans of an analysis, one after the other, and their results."""

    def __init__(
        self,
        found: Survey,
        selection: Selection,
        shard: Shard,
        out: Path,
        workers: AnalysisEngine,
        progress: Progress | None,
    ) -> None:
        self._found, self._selection, self._shard, self._out = found, selection, shard, out
        self._workers, self._progress = workers, progress
        self._fields: list[dict[str, Any]] = []
        self._measurements = 0
        self._tasks, self._missing = Counter[int](), list[Callable[[], Counter[int]]]()

    def spectra(self, steps: int) -> None:
        """Compute spectra."""
        # Without `out`: a step whose rows are known has no tasks, and each shard might find others.
        plans = SpectraPlans(self._found, self._selection)
        self._carry_out(plans, SpectraFiles, steps, _measured)

    def subspaces(self) -> None:
        """Compute comparisons of subspaces."""
        plans = SubspacePlans(self._found, self._selection)
        self._carry_out(plans, SubspaceFiles, plans.count, _compared)

    def _carry_out(
        self,
        plans: Plans[Any],
        store_of: Callable[[Path], Store[Any, Any, Any]],
        count: int,
        keep: Callable[[Executed[Any, Any]], int],
    ) -> None:
        store = ShardStore(store_of, self._out, self._shard)
        own = ShardPlans(plans, self._shard, path_of=store.path)
        fields, kept = carried_out(
            own,
            keep,
            store=store,
            engine=nullcontext(self._workers),
            meter=Meter(self._progress, count),
            found=self._found,
        )
        self._fields.append(fields)
        self._measurements += sum(kept)
        self._tasks += own.counts
        self._missing.append(lambda: own.missing(store.held_in))

    def result(self) -> ShardResult:
        """The result so far; missing tasks are counted now."""
        joined = {
            name: tuple(dict.fromkeys(skip for fields in self._fields for skip in fields[name]))
            for name in ("skips", "notes", "mended")
        }
        return ShardResult(
            **joined,
            computed=sum(fields["computed"] for fields in self._fields),
            key=None,
            shard=self._shard,
            measurements=self._measurements,
            tasks=self._tasks,
            missing=sum((count() for count in self._missing), Counter[int]()),
        )


def _measured(executed: Executed[Any, Entry]) -> int:
    return sum(entry.status in MEASURED for entry in executed.entries)


def _compared(executed: Executed[Any, Any]) -> int:
    return len(executed.entries)
