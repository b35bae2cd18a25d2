"""`Analysis`: what one call of `analyze` measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from rankscope.analysis.plan import Selection
from rankscope.checkpoints.run import Run
from rankscope.pipeline.call_results import CallResult
from rankscope.results.columns import MEASURED
from rankscope.results.measure import Row

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Analysis(CallResult):
    """What one call measured.

    Attributes
    ----------
    runs, selection
        What was requested.
    rows
        One per matrix and step, by run and step.
    csv
        The same as lines of the table, in parts; empty if they are not at hand.
    breaks
        The last step that does not continue the previous ones, by run name.
    subspaces
        One row per comparison of singular subspaces and measure.
    subspaces_key
        Digest of what they depend on; None if none were requested or some failed.
    seen
        What is recorded of the files, so that the next call can trust this one; None if it cannot.
    """

    runs: tuple[Run, ...]
    selection: Selection
    rows: tuple[Row, ...]
    breaks: Mapping[str, int]
    csv: tuple[bytes, ...] = ()
    subspaces: tuple[Row, ...] = ()
    subspaces_key: str | None = None
    seen: Mapping[str, Any] | None = None

    @cached_property
    def table(self) -> pd.DataFrame:
        """The rows as a DataFrame."""
        from rankscope.results.results import table_of

        table = table_of(self.rows)
        table.attrs |= {"unit": self.unit, "breaks": dict(self.breaks)}
        return table

    @property
    def unit(self) -> str:
        """What the steps count; all units where runs differ."""
        return " or ".join(dict.fromkeys(run.unit for run in self.runs))

    @property
    def measured(self) -> int:
        """Number of rows that are measurements; where there are none, no results are written."""
        return sum(row["status"] in MEASURED for row in self.rows)
