"""`RecalledAnalysis`: an earlier analysis whose results still hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rankscope.pipeline.call_results import CallResult
from rankscope.results.columns import MEASURED

if TYPE_CHECKING:
    import pandas as pd


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
