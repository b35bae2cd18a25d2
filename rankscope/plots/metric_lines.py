"""`metric`: any column of the metrics table against the training step."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.transforms import offset_copy

from rankscope.plots.marks import BAND_ALPHA, draw_band, draw_marks
from rankscope.plots.panel import Panel, drawn_on, keep_span, label_log_axis
from rankscope.plots.style import SeriesStyle
from rankscope.plots.time_axis import time_axis
from rankscope.statistics.quantities import Quantity, quantity, usual_error
from rankscope.statistics.replicates import Over, by_group
from rankscope.statistics.row_choice import chosen_rows, require_metric, series_names
from rankscope.statistics.step_summary import cuts_of, summarised_over, summary

BAR_WIDTH = 5
PART_WIDTH = 0.5
SMALL = 2.0  # markers of changes across restarts
MOST_MARKERS = 12


def metric(
    table: pd.DataFrame,
    column: str,
    *,
    component: str = "weight",
    role: str | None = None,
    hue: str = "run",
    group: str | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw a metric against the step: one line per run, summarised over layers.

    The line is the mean over the matrices of a step and the band spans their minimum to their
    maximum. For quantities that span decades, such as condition numbers, the axis is logarithmic,
    the line the median, and the band spans the 10 % to the 90 % quantile; matrices whose κ is known
    only from below enter at their bound. The legend says which it is. There is no band where one of
    its ends is infinite.

    A line of several runs, by ``group`` or a ``hue`` of your own, is their mean (or median), with a
    band from the least to the greatest run, as `rankscope.grouped` says.

    A line never joins points that cannot be compared. It is cut where another model begins, and
    where the kind of window changes: whole cycles, parts of a cycle (thin lines, cut at restarts)
    and changes across restarts (small markers).

    A marker is hollow where the point is not to be trusted: some matrix has no value, because it is
    zero, not finite or below the noise; rounding noise may be more than 1 % of a rank
    (``per_resolved`` against ``per``); or the median is only a lower bound, which also has an
    arrow. If no matrix has a value, the marker is at the bottom of the axes; if the median is
    infinite, at the top. Long series have a marker every few points.

    Parameters
    ----------
    table
        The metrics table. Colours are decided from all of it, not from the rows drawn.
    column
        The metric, such as ``per``, ``stable_rank``, ``condition_number_r`` or ``relative_size``;
        also one of your own (`Results.with_metric`).
    component, role
        Which matrices: a component, and a role or all.
    hue
        The column that identifies the lines; runs, layers, or a column of your own.
    group
        A pattern that puts runs together as replicates, in place of ``hue``: see
        `rankscope.grouped`.
    legend
        Whether to draw a legend; its entries are there either way.
    ax
        Where to draw; the current axes if not given.

    Raises
    ------
    RankscopeError
        If there are no such rows or no such metric, or the pattern matches no run.

    Examples
    --------
    >>> import rankscope as rs
    >>> table = rs.open_results("results").metrics
    >>> ax = rs.plots.metric(table, "stable_rank", role="q", hue="layer")
    >>> ax.get_ylabel()
    'stable rank'
    """
    table, hue = by_group(table, group, hue)
    rows = chosen_rows(table, component=component, role=role)
    require_metric(rows, column)
    points = summary(rows, column, hue=hue, cuts=cuts_of(table))
    with drawn_on(ax, series_names(table, hue), legend=legend) as panel:
        for name, series in points.groupby(hue, sort=True):
            draw_series(panel, name, series)
        explain(panel, points, column, over=summarised_over(rows, hue=hue))
        if column == "condition_number_r" and _ranks_differ(rows, hue):
            panel.note(f"r differs by {hue.replace('_', ' ')}: heights are not comparable")
        time_axis(panel, table, rows, hue=hue)
        scale_axis(panel.ax, quantity(column), error=usual_error(rows, column))
    return panel.ax


def scale_axis(ax: Axes, drawn: Quantity, *, error: float = 0.0) -> None:
    """Label the axis of a quantity, and give it its scale and the least span worth showing."""
    ax.set_ylabel(drawn.label)
    if drawn.log:
        ax.set_yscale("log", nonpositive="mask")
        label_log_axis(ax)
    else:
        keep_span(ax, error=error)


def draw_series(panel: Panel, name: object, points: pd.DataFrame) -> None:
    """Draw the points of a `summary` as lines with bands and markers, named in the legend.

    There is one line per kind of window, and it is cut into its stretches.
    """
    draw_points(panel.ax, points, panel.series(name))


def draw_points(ax: Axes, points: pd.DataFrame, style: SeriesStyle) -> None:
    """Draw the points of a `summary` of one series; see `draw_series`."""
    for kind in sorted(set(points["window"])):
        line = points[points["window"] == kind]
        for number in sorted(set(line["stretch"])):
            stretch = line[line["stretch"] == number]
            _draw_line(ax, stretch, style, width=PART_WIDTH if kind == "within" else None)
        _draw_markers(ax, line, style, size=SMALL if kind == "across" else None)


def _draw_line(ax: Axes, series: pd.DataFrame, style: SeriesStyle, *, width: float | None) -> None:
    values = series[["centre", "low", "high"]].to_numpy(np.float64)
    centre, low, high = np.where(np.isfinite(values), values, np.nan).T
    steps = series["step"].to_numpy()
    ax.plot(steps, centre, color=style.color, linestyle=style.dashes, linewidth=width)
    if len(steps) > 1:
        draw_band(ax, steps, (low, high), style)
    elif low < high:
        ax.vlines(steps, low, high, color=style.color, alpha=BAND_ALPHA, linewidth=BAR_WIDTH)


def _draw_markers(
    ax: Axes, series: pd.DataFrame, style: SeriesStyle, *, size: float | None
) -> None:
    shown = series[_is_marked(series)]
    at_foot, at_head = shown["centre"].isna(), np.isinf(shown["centre"])
    placed = shown[~at_foot & ~at_head]
    draw_marks(ax, placed["step"], placed["centre"], style, hollow=is_hollow(placed), size=size)
    _scatter_arrows(ax, placed[placed["bound"]], style)
    for height, there in ((0.0, at_foot), (1.0, at_head)):
        if there.any():
            ax.plot(
                shown.loc[there, "step"],
                np.full(there.sum(), height),
                linestyle="",
                marker=style.marker,
                color=style.color,
                markerfacecolor="white",
                transform=ax.get_xaxis_transform(),
                clip_on=False,
                zorder=4,
            )


def is_hollow(points: pd.DataFrame) -> pd.Series[bool]:
    """Whether a point of a `summary` is drawn hollow: not to be trusted as it is."""
    hollow: pd.Series[bool] = (points["undefined"] > 0) | points["noisy"] | points["bound"]
    return hollow


def _is_marked(series: pd.DataFrame) -> pd.Series[bool]:
    """Every few points, and wherever filled turns to hollow or back."""
    hollow = is_hollow(series)
    stride = math.ceil(len(series) / MOST_MARKERS)
    every = pd.Series(np.arange(len(series)) % stride == 0, index=series.index)
    return every | (hollow != hollow.shift(fill_value=hollow.iloc[0]))


def _scatter_arrows(ax: Axes, points: pd.DataFrame, style: SeriesStyle) -> None:
    if points.empty:
        return
    # Room for the arrows, which lie beside the points and so do not count for the limits.
    ax.update_datalim(list(zip(points["step"], 4 * points["centre"], strict=True)))
    raised = offset_copy(ax.transData, fig=ax.get_figure(root=True), y=6, units="points")
    ax.plot(
        points["step"].to_numpy(),
        points["centre"].to_numpy(),
        linestyle="",
        marker=r"$\uparrow$",
        markersize=5,
        color=style.color,
        markeredgewidth=0.2,
        transform=raised,
        clip_on=False,
        zorder=3,
    )


def explain(panel: Panel, points: pd.DataFrame, column: str, *, over: Over) -> None:
    """Enter into the legend what the marks that occur mean."""
    kinds = {*points["window"]}
    panel.summarised(column, over, has_band=bool((points["low"] < points["high"]).any()))
    if "within" in kinds:
        panel.line("part of a cycle (rank r after a restart, then up to 2r)", width=PART_WIDTH)
    if "across" in kinds:
        panel.mark("across restarts", ".", hollow=False)
    explain_marks(panel, points)


def explain_marks(panel: Panel, points: pd.DataFrame) -> None:
    """Enter what the hollow markers that occur mean, and those at the ends of the axes."""
    is_undefined = points["centre"].isna()
    if points["noisy"].any():
        panel.mark("noise may change it by > 1 %")
    if ((points["undefined"] > 0) & ~is_undefined).any():
        panel.mark("partly undefined")
    if is_undefined.any():
        panel.mark("undefined (at the bottom)")
    if points["bound"].any():
        panel.mark("lower bound only", r"$\uparrow$")
    if np.isinf(points["centre"]).any():
        panel.mark("infinite (at the top)")


def _ranks_differ(rows: pd.DataFrame, hue: str) -> bool:
    """Whether the lines are condition numbers over different ranks."""
    known = rows.dropna(subset=["numerical_rank", "condition_number_r"])
    return bool(known.groupby(hue)["numerical_rank"].median().nunique() > 1)
