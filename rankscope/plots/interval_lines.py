"""Lines of numbers that have intervals of their own, such as scores."""

from __future__ import annotations

import pandas as pd

from rankscope.plots.metric_lines import draw_series, explain_marks
from rankscope.plots.panel import Panel
from rankscope.statistics.interval_points import Interval, interval_points
from rankscope.statistics.replicates import Over


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
    points = interval_points(rows, columns, hue=hue, log=log, noisy=noisy)
    for name, series in points.groupby(hue, sort=True):
        draw_series(panel, name, series)
    if over:
        panel.line(f"{'geometric mean' if log else 'mean'} over {over}")
    if (points["low"] < points["high"]).any():
        panel.band(f"min to max over {over}" if over else interval)
    panel.left_out(over)
    explain_marks(panel, points)
