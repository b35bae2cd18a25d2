"""`Analysis`: what one call of `analyze` measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankscope.analysis.plan import Selection
from rankscope.checkpoints.run import Run
from rankscope.pipeline.call_results import CallResult
from rankscope.results.measure import Row
from rankscope.results.step_rows import KeptRows, iter_rows

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Analysis(CallResult):
    """What one call measured.

    Attributes
    ----------
    runs, selection
        What was requested.
    parts
        The rows, one per matrix and step, by run and step.
    breaks
        The last step that does not continue the previous ones, by run name.
    subspaces
        One row per comparison of singular subspaces and measure.
    subspaces_key
        Digest of what they depend on; None if none were requested or some failed.
    seen
        What is recorded of the files, so that the next call can trust this one; None if it cannot.
    out
        The results folder, if the table is written.
    """

    runs: tuple[Run, ...]
    selection: Selection
    parts: tuple[KeptRows, ...]
    breaks: Mapping[str, int]
    subspaces: tuple[Row, ...] = ()
    subspaces_key: str | None = None
    seen: Mapping[str, Any] | None = None
    out: Path | None = None

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """All rows, which are in memory from now on."""
        return tuple(iter_rows(self.parts))

    @cached_property
    def table(self) -> pd.DataFrame:
        """The rows as a DataFrame."""
        from rankscope.results.results import open_results, table_of

        if self.out is not None:
            return open_results(self.out).metrics
        table = table_of(iter_rows(self.parts))
        table.attrs |= {"unit": self.unit, "breaks": dict(self.breaks)}
        return table

    @property
    def unit(self) -> str:
        """What the steps count; all units where runs differ."""
        return " or ".join(dict.fromkeys(run.unit for run in self.runs))

    @property
    def measured(self) -> int:
        """Number of rows that are measurements; where there are none, no results are written."""
        return sum(part.measured for part in self.parts)
