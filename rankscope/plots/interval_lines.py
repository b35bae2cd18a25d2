"""Lines of numbers that have intervals of their own, such as scores."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from rankscope.plots.metric_lines import draw_series, explain_marks
from rankscope.plots.panel import Panel
from rankscope.statistics.replicates import Over, are_replicates, at_common_steps, none_in_common
from rankscope.statistics.step_summary import cuts_of, over_runs


class Interval(NamedTuple):
    """The columns that hold a number and the ends of its interval; no names where it has none."""

    value: str
    low: str = ""
    high: str = ""


def interval_of(rows: pd.DataFrame, column: str) -> Interval:
    """A number with the ends ``…_low`` and ``…_high``, as far as the rows have them."""
    low, high = (name if name in rows else "" for name in (f"{column}_low", f"{column}_high"))
    return Interval(column, low, high)


def draw_intervals(
    panel: Panel,
    rows: pd.DataFrame,
    columns: Interval,
    *,
    hue: str,
    over: Over,
    interval: str = "95 % interval over documents",
    log: bool = False,
    noisy: pd.Series[bool] | None = None,
) -> None:
    """Draw a number against the step, a line for every series, and enter what its marks mean.

    Parameters
    ----------
    panel
        Where to draw.
    rows
        One row per run and step.
    columns
        Which number; its interval is the band of a line of one run.
    hue
        The column that identifies the lines. Where these are of several runs, each point is their
        mean at the steps that all of them have, and the band is from the least to the greatest.
    over
        How many runs these are.
    interval
        What the intervals are.
    log
        Whether that mean is geometric.
    noisy
        Which rows rounding may move, for hollow markers; by default none.

    Raises
    ------
    WrongSettingError
        If the runs of a line have no step in common.
    """
    points = _of_series(rows, columns, hue=hue, log=log, noisy=noisy)
    for name, series in points.groupby(hue, sort=True):
        draw_series(panel, name, series)
    if over:
        panel.line(f"{'geometric mean' if log else 'mean'} over {over}")
    if (points["low"] < points["high"]).any():
        panel.band(f"min to max over {over}" if over else interval)
    panel.left_out(over)
    explain_marks(panel, points)


def _of_series(
    rows: pd.DataFrame, columns: Interval, *, hue: str, log: bool, noisy: pd.Series[bool] | None
) -> pd.DataFrame:
    """Rows as the points of a `rankscope.statistics.step_summary.summary`."""
    if not are_replicates(rows, hue):
        return _points(rows, columns, hue, noisy)
    common, keys = rows[at_common_steps(rows, hue)], [hue, "window", "step"]
    if common.empty:
        raise none_in_common(rows, hue)
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
