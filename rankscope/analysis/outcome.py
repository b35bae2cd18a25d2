"""`Analysis`: everything that came of one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from rankscope.analysis.plan import Selection
from rankscope.analysis.rows import Row
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.run import Run

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
        from rankscope.analysis.table import table_of

        return table_of(self.rows)

    @property
    def unit(self) -> str:
        """What the steps of the runs count; of runs that count other things all of it."""
        return " or ".join(dict.fromkeys(run.unit for run in self.runs))

    @property
    def measured(self) -> int:
        """Number of rows that are measurements; where there are none, no results are written."""
        return sum(row["status"] in MEASURED for row in self.rows)
