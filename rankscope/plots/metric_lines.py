"""`metric`: any column of the metrics table against the training step."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogFormatterMathtext, LogLocator, NullFormatter
from matplotlib.transforms import offset_copy

from rankscope.plots.grid import step_label
from rankscope.plots.legends import band_entry, draw_legend, line_entry, mark_entry, series_entry
from rankscope.plots.style import SeriesStyle, series_styles
from rankscope.statistics.quantities import quantity
from rankscope.statistics.row_choice import chosen_rows, distinct
from rankscope.statistics.step_summary import band_text, line_text, summarised_over, summary

BAND_ALPHA = 0.18
BAR_WIDTH = 5
# Changes over windows of different kinds are different objects: each kind has lines of its own.
WINDOWS = {
    "": "steps without restarts",
    "cycle": "whole cycles",
    "within": "parts of a cycle (rank up to 2r)",
    "across": "across restarts",
}
PARTS = {"within": 0.5, "across": 0.25}  # width of their lines
MOST_MARKERS = 12


def metric(
    table: pd.DataFrame,
    column: str,
    *,
    component: str = "weight",
    role: str | None = None,
    hue: str = "run",
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw a metric against the step: one line a run, summarised over layers.

    Changes within a cycle, of whole cycles and across restarts have a line each.

    The line is the mean over the matrices of a step and the band goes from their minimum to their
    maximum. Where the quantity spans decades, as condition numbers do, the axis is logarithmic,
    the line the median, and the band from the 10 % to the 90 % quantile; matrices of which only
    a lower bound of κ is known enter at their bound. The legend says which it is. There is no
    band where an end of it is infinite.

    A marker is hollow where the point is not to be trusted: some matrix has no value, being zero
    or not finite or too small beside the noise, rounding noise may be more than 1 % of a rank
    (``per_resolved`` against ``per``), or the median is only a lower bound, which has an arrow
    besides. Where no matrix has a value it stands at the foot of the axes, where the median is
    infinite at the head. Long series have a marker every few points.

    Parameters
    ----------
    table
        The metrics table. Colours are decided from all of it, not from the rows drawn.
    column
        The metric, one of `QUANTITIES`.
    component, role
        Which matrices: a component, and a role or all.
    hue
        The column that tells the lines apart.
    legend
        Whether to draw a legend; its entries are there either way.
    ax
        Where to draw; the current axes if not given.

    Raises
    ------
    RankscopeError
        If there are no such rows or no such metric.
    """
    drawn = quantity(column)
    rows = chosen_rows(table, component=component, role=role)
    styles = series_styles(distinct(table, hue))
    points = summary(rows, column, hue=hue)
    kinds = [kind for kind in WINDOWS if kind in set(points["window"])]
    ax = plt.gca() if ax is None else ax
    if drawn.log:
        ax.set_yscale("log", nonpositive="mask")
    for (name, window), series in points.groupby([hue, "window"], sort=True):
        width = PARTS.get(str(window)) if len(kinds) > 1 else None
        draw_series(ax, name, series, style=styles[name], width=width)
    for kind in kinds if len(kinds) > 1 else ():
        line_entry(ax, WINDOWS[kind], "-", width=PARTS.get(kind, 1.1))
    _explain(ax, points, column, over=summarised_over(rows, hue=hue))
    ax.set(xlabel=step_label(table), ylabel=drawn.label)
    if drawn.log:
        label_log_axis(ax)
    if legend:
        draw_legend(ax)
    return ax


def draw_series(
    ax: Axes,
    name: object,
    points: pd.DataFrame,
    *,
    style: SeriesStyle,
    width: float | None = None,
) -> None:
    """Draw the points of a `summary` as a line with its band and markers, named in the legend."""
    series_entry(ax, name, style)
    _draw_line(ax, points, style, width)
    _draw_markers(ax, points, style)


def _draw_line(ax: Axes, series: pd.DataFrame, style: SeriesStyle, width: float | None) -> None:
    finite = series.replace([np.inf, -np.inf], np.nan)
    ax.plot(
        finite["step"],
        finite["centre"],
        color=style.color,
        linestyle=style.dashes,
        linewidth=width,
    )
    if not (finite["low"] < finite["high"]).any():
        return
    if len(finite) == 1:
        ax.vlines(
            finite["step"],
            finite["low"],
            finite["high"],
            color=style.color,
            alpha=BAND_ALPHA,
            linewidth=BAR_WIDTH,
        )
    else:
        ax.fill_between(
            finite["step"],
            finite["low"],
            finite["high"],
            color=style.color,
            alpha=BAND_ALPHA,
            linewidth=0,
        )


def _draw_markers(ax: Axes, series: pd.DataFrame, style: SeriesStyle) -> None:
    shown = series[_is_marked(series)]
    at_foot, at_head = shown["centre"].isna(), np.isinf(shown["centre"])
    placed = shown[~at_foot & ~at_head]
    hollow = is_hollow(placed)
    _scatter(ax, placed[~hollow], style, face=style.color)
    _scatter(ax, placed[hollow], style, face="white")
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
    """Whether a point of a `summary` is drawn hollow: not to be trusted as it stands."""
    hollow: pd.Series[bool] = (points["undefined"] > 0) | points["noisy"] | points["bound"]
    return hollow


def _is_marked(series: pd.DataFrame) -> pd.Series[bool]:
    """Every few points, and wherever filled turns to hollow or back."""
    hollow = is_hollow(series)
    stride = math.ceil(len(series) / MOST_MARKERS)
    every = pd.Series(np.arange(len(series)) % stride == 0, index=series.index)
    return every | (hollow != hollow.shift(fill_value=hollow.iloc[0]))


def _scatter(ax: Axes, points: pd.DataFrame, style: SeriesStyle, *, face: str) -> None:
    if points.empty:
        return
    ax.plot(
        points["step"],
        points["centre"],
        linestyle="",
        marker=style.marker,
        color=style.color,
        markerfacecolor=face,
        zorder=3,
    )


def _scatter_arrows(ax: Axes, points: pd.DataFrame, style: SeriesStyle) -> None:
    if points.empty:
        return
    # Room for the arrows, which lie beside the points and so do not count for the limits.
    ax.update_datalim(list(zip(points["step"], 4 * points["centre"], strict=True)))
    raised = offset_copy(ax.transData, fig=ax.get_figure(root=True), y=6, units="points")
    ax.plot(
        points["step"],
        points["centre"],
        linestyle="",
        marker=r"$\uparrow$",
        markersize=5,
        color=style.color,
        markeredgewidth=0.2,
        transform=raised,
        clip_on=False,
        zorder=3,
    )


def _explain(ax: Axes, points: pd.DataFrame, column: str, *, over: str) -> None:
    """Enter into the legend what the marks that occur mean."""
    if over:
        line_entry(ax, line_text(column, over), "-", width=1.1)
    if (points["low"] < points["high"]).any():
        band_entry(ax, band_text(column, over))
    if points["noisy"].any():
        mark_entry(ax, "noise may move it > 1 %", "o")
    if ((points["undefined"] > 0) & points["centre"].notna()).any():
        mark_entry(ax, "undefined for some", "o")
    if points["centre"].isna().any():
        mark_entry(ax, "at the foot: undefined", "o")
    if points["bound"].any():
        mark_entry(ax, "lower bound only", r"$\uparrow$")
    if np.isinf(points["centre"]).any():
        mark_entry(ax, "at the head: infinite", "o")


def label_log_axis(ax: Axes) -> None:
    """Put readable ticks on a log axis: 1, 2, 5, 10, … where it spans less than two decades."""
    ax.yaxis.set_minor_formatter(NullFormatter())
    low, high = ax.get_ylim()
    if not 0 < low < high or high / low > 100:
        ax.yaxis.set_major_locator(LogLocator())
        ax.yaxis.set_major_formatter(LogFormatterMathtext())
        return
    ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
