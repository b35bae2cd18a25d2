"""The result of `analyze`, computed now or recalled from an earlier call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankscope.analysis.plan import Selection
from rankscope.analysis.spectra_files import MEASURED
from rankscope.checkpoints.run import Run
from rankscope.pipeline.calls import CallResult
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
    breaks
        The last step that does not continue the previous ones, by run name.
    subspaces
        One row per comparison of singular subspaces and measure.
    subspaces_key
        Digest of what they depend on; None if none were requested or some failed.
    """

    runs: tuple[Run, ...]
    selection: Selection
    rows: tuple[Row, ...]
    breaks: Mapping[str, int]
    subspaces: tuple[Row, ...] = ()
    subspaces_key: str | None = None

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


@dataclass(frozen=True)
class RecalledAnalysis(CallResult):
    """An earlier analysis whose results still hold, with its folder and its record."""

    out: Path
    record: Mapping[str, Any]

    @cached_property
    def table(self) -> pd.DataFrame:
        """The rows as a DataFrame."""
        from rankscope.results.results import open_results

        return open_results(self.out).metrics

    @property
    def measured(self) -> int:
        """Number of rows that are measurements."""
        return sum(count for status, count in self.record["status"].items() if status in MEASURED)
