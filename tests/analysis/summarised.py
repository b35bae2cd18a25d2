"""The summary of rows that are all in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rankscope.analysis.summary import Gathered, Summary
from rankscope.results.columns import COLUMNS, TEXT, WHOLE
from rankscope.results.measure import Row
from rankscope.results.typed_columns import Columns


def columns_of(rows: Iterable[Row]) -> Columns:
    """Rows as columns of the table."""
    return Columns.of(rows, COLUMNS, whole=WHOLE, text=TEXT)


def summarise(
    rows: Iterable[Row],
    breaks: Mapping[str, int] | None = None,
    units: Mapping[str, str] | None = None,
) -> Summary:
    """The summary of rows in the order of the table, as `Gathered` makes it."""
    gathered = Gathered(breaks, units)
    gathered.add(columns_of(rows))
    return gathered.summary()
