"""What came of a call: an analysis, or the results of an earlier one that still hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankscope.analysis.plan import Plans, Selection
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.run import Run
from rankscope.results.columns import ANALYSIS_RECORD, SPECTRA_FOLDER
from rankscope.results.measure import Row
from rankscope.results.record import is_intact, read_record
from rankscope.results.spectra_store import store_path

if TYPE_CHECKING:
    import pandas as pd

MEASURED = ("ok", "zero", "vector", "empty")  # statuses; any other says why there is no spectrum


@dataclass(frozen=True)
class Analysis:
    """What one call found.

    Attributes
    ----------
    runs, selection
        What was asked.
    rows
        One a matrix a step, by run and step.
    skips
        What could not be analysed, and why.
    notes
        What is worth a line although nothing is missing; why what was asked for is not there.
    mended
        What of the store was damaged and was computed anew: worth a line in this call only.
    breaks
        The last step of a run that does not continue the steps before, by the run's name.
    computed
        How many spectra were not in the store and were computed.
    key
        Digest of what the rows depend on; None where something failed that may succeed when it
        is tried again.
    """

    runs: tuple[Run, ...]
    selection: Selection
    rows: tuple[Row, ...]
    skips: tuple[Skip, ...]
    computed: int
    key: str | None
    notes: tuple[Skip, ...] = ()
    mended: tuple[Skip, ...] = ()
    breaks: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def table(self) -> pd.DataFrame:
        """The rows as a DataFrame."""
        from rankscope.results.results import table_of

        return table_of(self.rows)

    @property
    def unit(self) -> str:
        """What the steps of the runs count; of runs that count other things all of it."""
        return " or ".join(dict.fromkeys(run.unit for run in self.runs))

    @property
    def measured(self) -> int:
        """Number of rows that are measurements; where there are none, no results are written."""
        return sum(row["status"] in MEASURED for row in self.rows)


@dataclass(frozen=True)
class Recalled:
    """An earlier analysis that asked the same of the same files; its results are still there.

    Attributes
    ----------
    out
        The results folder.
    record
        What ``analysis.json`` says.
    """

    out: Path
    record: Mapping[str, Any]
    computed = 0
    mended: tuple[Skip, ...] = ()

    @property
    def skips(self) -> tuple[Skip, ...]:
        """What could not be analysed, and why."""
        return tuple(Skip(**skip) for skip in self.record["skipped"])

    @property
    def notes(self) -> tuple[Skip, ...]:
        """What is worth a line although nothing is missing."""
        return tuple(Skip(**note) for note in self.record["notes"])

    @cached_property
    def table(self) -> pd.DataFrame:
        """The rows as a DataFrame."""
        from rankscope.results.results import open_results

        return open_results(self.out).metrics

    @property
    def unit(self) -> str:
        """What the steps of the runs count."""
        return " or ".join(dict.fromkeys(run["unit"] for run in self.record["runs"]))

    @property
    def measured(self) -> int:
        """Number of rows that are measurements."""
        return sum(count for status, count in self.record["status"].items() if status in MEASURED)


def recall(
    out: Path, runs: Sequence[Run], selection: Selection, said: Sequence[Skip] = ()
) -> Recalled | None:
    """Return the last analysis into ``out`` if it asked the same of files that are still the same.

    Reads headers, and the tables for their digests: a table that was emptied, damaged or replaced
    by that of another call is written again, as is a file of the store that was removed. ``said``
    are the skips and notes of the survey that found the runs.
    """
    record = read_record(out / ANALYSIS_RECORD)
    if not record.get("key") or not is_intact(out / ANALYSIS_RECORD):
        return None
    plans = Plans(runs, selection, said)
    needed = [store_path(out / SPECTRA_FOLDER, plan.run, plan.step) for plan in plans if plan.tasks]
    has_all = all(path.is_file() for path in needed)
    return Recalled(out, record) if has_all and record["key"] == plans.key else None
