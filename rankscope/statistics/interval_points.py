"""Numbers that have intervals of their own, such as scores, as points of a summary."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from rankscope.statistics.replicates import are_replicates, in_common
from rankscope.statistics.step_summary import cuts_of, over_runs


class Interval(NamedTuple):
    """The columns that hold a number and the ends of its interval; no names where it has none."""

    value: str
    low: str = ""
    high: str = ""


def interval_columns(rows: pd.DataFrame, column: str) -> Interval:
    """A number with the ends ``…_low`` and ``…_high``, as far as the rows have them."""
    low, high = (name if name in rows else "" for name in (f"{column}_low", f"{column}_high"))
    return Interval(column, low, high)


def interval_points(
    rows: pd.DataFrame, columns: Interval, *, hue: str, log: bool, noisy: pd.Series[bool] | None
) -> pd.DataFrame:
    """Rows as the points of a `rankscope.statistics.step_summary.summary`."""
    if not are_replicates(rows, hue):
        return _points(rows, columns, hue, noisy)
    common, keys = in_common(rows, hue), [hue, "window", "step"]
    points = _points(common, columns, hue, None if noisy is None else noisy[common.index])
    with np.errstate(divide="ignore"):
        values = points.assign(centre=np.log(points["centre"])) if log else points
    merged = over_runs(values, keys, log=False)
    ends = ["centre", "low", "high"]
    if log:
        merged[ends] = np.exp(merged[ends])
    return merged.assign(stretch=points.groupby(keys)["stretch"].max().to_numpy())


def _points(
    rows: pd.DataFrame, columns: Interval, hue: str, noisy: pd.Series[bool] | None
) -> pd.DataFrame:
    begins = rows["run"].map(cuts_of(rows).breaks).fillna(np.inf)
    points = pd.DataFrame({hue: rows[hue], "run": rows["run"], "step": rows["step"]}).assign(
        centre=rows[columns.value],
        low=rows[columns.low] if columns.low else np.nan,
        high=rows[columns.high] if columns.high else np.nan,
        stretch=rows["step"] >= begins,
        undefined=rows[columns.value].isna().astype(int),
        window="",
        noisy=False if noisy is None else noisy,
        bound=False,
    )
    return points.sort_values([hue, "step"])
