"""The summary of rows that are all in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rankscope.analysis.summary import Gathered, Summary
from rankscope.results.measure import Row


def summarise(
    rows: Iterable[Row],
    breaks: Mapping[str, int] | None = None,
    units: Mapping[str, str] | None = None,
) -> Summary:
    """The summary of rows in the order of the table, as `Gathered` makes it."""
    gathered = Gathered(breaks, units)
    gathered.add(rows)
    return gathered.summary()
