"""`layer_profile`, `depth_slope` and `depth_profiles`: how a metric changes with depth."""

from __future__ import annotations

import math
from collections.abc import Collection

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rankscope.errors import WrongSettingError
from rankscope.plots.grid import new_figure, row_title, shared_legend
from rankscope.plots.label_texts import name_title, wrapped
from rankscope.plots.marks import draw_band, draw_marks
from rankscope.plots.metric_lines import MOST_MARKERS, PART_WIDTH
from rankscope.plots.panel import GREY, ROUND, Panel, drawn_on, label_log_axis
from rankscope.plots.style import DARKENING, SeriesStyle, figure_width, paper_look
from rankscope.plots.time_axis import time_axis
from rankscope.statistics.depth import in_every_layer, known_slopes, layer_means
from rankscope.statistics.quantities import quantity
from rankscope.statistics.replicates import at_common_steps, by_group
from rankscope.statistics.row_choice import (
    chosen_rows,
    in_order,
    require_metric,
    series_names,
    step_label,
)
from rankscope.statistics.step_summary import summarised_over

MOST_STEPS, MOST_TICKS = 6, 4
ROW_HEIGHT = 1.0
BAR_PAD = 0.1
ROW_TITLE = 0.25  # of the width


def layer_profile(
    table: pd.DataFrame,
    column: str = "per",
    *,
    component: str = "weight",
    role: str | None = None,
    run: str | None = None,
    steps: Collection[int] | None = None,
    colorbar: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw a metric against the layer, one line per step, later ones darker.

    Each point is the mean over the matrices of the layer, of the logarithms where the quantity
    spans decades.

    Parameters
    ----------
    table
        The metrics table.
    column
        The metric, as in `rankscope.plots.metric`.
    component, role, run
        Which matrices; without a role, the mean is over those roles that every layer has.
    steps
        Steps to draw; a few from the first to the last one if not given.
    colorbar
        Whether to draw the colours of the steps beside the axes.
    ax
        Where to draw; the current axes if not given.

    Raises
    ------
    RankscopeError
        If there are no such rows, or none of them belongs to a layer.

    Examples
    --------
    >>> import rankscope as rs
    >>> table = rs.open_results("results").metrics
    >>> ax = rs.plots.layer_profile(table, "stable_rank", run="relora", role="q")
    >>> len(ax.lines)
    4
    """
    rows = in_every_layer(chosen_rows(table, component=component, role=role, run=run))
    scale = Normalize(float(rows["step"].min()), float(rows["step"].max()))
    ax = plt.gca() if ax is None else ax
    _draw_profiles(ax, rows, column, scale, steps=steps)
    ax.set(xlabel="layer", ylabel=quantity(column).label)
    if colorbar and _has_steps(scale):
        ax.figure.colorbar(ScalarMappable(scale, DARKENING), ax=ax, label=step_label(table))
    return ax


def depth_slope(
    table: pd.DataFrame,
    column: str = "per",
    *,
    component: str = "weight",
    role: str | None = None,
    hue: str = "run",
    group: str | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw the slope of a metric over the layers against the step: one line per run.

    The slope is Theil and Sen's, its band a 95 % interval that takes layers as independent: where
    depth makes no difference, 1 in 20 excludes 0 by chance. Markers are hollow where the interval
    contains 0. Quantities that span decades enter by their decimal logarithm. Replicates have the
    mean of their slopes, with Student's interval over runs.

    Parameters
    ----------
    table
        The metrics table. Colours are decided from all of it.
    column, component
        The metric and the matrices, as in `rankscope.plots.metric`.
    role
        Which role; without one, each layer enters with the mean over those roles that all have.
    hue, group, legend, ax
        As in `rankscope.plots.metric`.

    Raises
    ------
    RankscopeError
        If there are no such rows, or values in fewer than three layers.

    Examples
    --------
    >>> import pandas as pd
    >>> import rankscope as rs
    >>> table = rs.open_results("results").metrics.query("role == 'q' and component == 'weight'")
    >>> deep = pd.concat(table.assign(layer=2 * i + table["layer"]) for i in range(3))
    >>> ax = rs.plots.depth_slope(deep, "per")
    >>> ax.get_ylabel()
    'slope of PER per layer'
    """
    table, hue = by_group(table, group, hue)
    rows = in_every_layer(chosen_rows(table, component=component, role=role))
    found = known_slopes(rows, column, hue)
    with drawn_on(ax, series_names(table, hue), legend=legend) as panel:
        for name, series in found.groupby(hue, sort=True):
            _draw_slopes(panel.ax, series, panel.series(name))
        _explain(panel, found, rows, hue)
        time_axis(panel, table, rows, hue=hue)
        panel.ax.set_ylabel(_slope_label(column))
    return panel.ax


@paper_look()
def depth_profiles(
    table: pd.DataFrame,
    column: str = "per",
    *,
    component: str = "weight",
    role: str | None = None,
    hue: str = "run",
    group: str | None = None,
) -> Figure:
    """Figure of `layer_profile` beside `depth_slope`, a row for every run.

    Parameters and errors as for `depth_slope`; there is a row for each value of ``hue``: runs, or
    the roles of one run.

    Examples
    --------
    >>> import pandas as pd
    >>> import rankscope as rs
    >>> table = rs.open_results("results").metrics.query("role == 'q' and component == 'weight'")
    >>> deep = pd.concat(table.assign(layer=2 * i + table["layer"]) for i in range(3))
    >>> figure = rs.plots.depth_profiles(deep)
    >>> [ax.get_xlabel() for ax in figure.axes][2:4]
    ['layer', 'step']
    """
    table, hue = by_group(table, group, hue)
    rows = in_every_layer(chosen_rows(table, component=component, role=role))
    found = known_slopes(rows, column, hue)
    names = in_order(rows[hue]) if hue == "role" else sorted(found[hue].unique())
    width, height = figure_width(), 0.55 + ROW_HEIGHT * len(names)
    figure, grid = new_figure(len(names), 2, size=(width, height), share_x="col", share_y="col")
    scale = Normalize(float(rows["step"].min()), float(rows["step"].max()))
    for name, (profiles, slope) in zip(names, grid, strict=True):
        _draw_profiles(profiles, rows[rows[hue] == name], column, scale)
        style = SeriesStyle(GREY, "o", "-")
        panel = Panel(slope, {name: style})
        _draw_slopes(slope, found[found[hue] == name], style)
        _explain(panel, found, rows, hue)
        time_axis(panel, table, rows[rows[hue] == name], hue=hue)
        slope.set_xlabel("")
        for ax in (profiles, slope):
            if not quantity(column).log or ax is slope:
                # Not as many as fit: the height, on which that depends, is not the one that the
                # layout measured the labels at.
                ax.yaxis.set_major_locator(MaxNLocator(nbins=MOST_TICKS, steps=ROUND))
        row_title(slope, name_title(name, ROW_TITLE * width))
    symbol, unit = quantity(column).symbol, step_label(table)
    drawn = symbol if _has_steps(scale) else f"{symbol} at {unit} {rows['step'].iloc[0]}"
    for ax, title in zip(grid[0], (drawn, _slope_label(column)), strict=True):
        ax.set_title(wrapped(title, 0.4 * width))
    grid[-1][0].set_xlabel("layer")
    grid[-1][1].set_xlabel(unit)
    shared_legend(figure, [line[1] for line in grid], hole=None)
    if _has_steps(scale):
        figure.colorbar(
            ScalarMappable(scale, DARKENING),
            ax=[line[0] for line in grid],
            location="bottom",
            label=f"{unit} of each line",
            aspect=30,
            pad=BAR_PAD / len(names),
        )
    return figure


def _draw_profiles(
    ax: Axes,
    rows: pd.DataFrame,
    column: str,
    scale: Normalize,
    *,
    steps: Collection[int] | None = None,
) -> None:
    if rows["run"].nunique() > 1:
        rows = rows[at_common_steps(rows.assign(all_runs=0), "all_runs")]
    require_metric(rows, column)
    profiles, is_log = layer_means(rows, column), quantity(column).log
    wanted = (
        _spread([int(step) for step in profiles.columns.to_numpy()]) if steps is None else steps
    )
    missing = sorted(set(wanted) - {*profiles.columns})
    if missing:
        there = ", ".join(map(str, profiles.columns))
        raise WrongSettingError(f"no step {missing[0]} in `steps`: choose from {there}")
    if is_log:
        ax.set_yscale("log")
    for step in wanted:
        heights = 10 ** profiles[step] if is_log else profiles[step]
        ax.plot(profiles.index, heights, color=DARKENING(scale(step)), marker=".", markersize=3)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
    if is_log:
        label_log_axis(ax)


def _has_steps(scale: Normalize) -> bool:
    """Whether the colours are of several steps."""
    return scale.vmin != scale.vmax


def _spread(steps: list[int]) -> list[int]:
    """A few steps from the first to the last, spaced as evenly as possible."""
    aims = np.linspace(steps[0], steps[-1], MOST_STEPS)
    return sorted({min(steps, key=lambda step: abs(step - aim)) for aim in aims})


def _draw_slopes(ax: Axes, series: pd.DataFrame, style: SeriesStyle) -> None:
    """Draw slopes with their intervals, a line for each kind of window."""
    for window, line in series.groupby("window"):
        width = PART_WIDTH if window == "within" else None
        dashes = "" if window == "across" else style.dashes
        ax.plot(line["step"], line["slope"], color=style.color, linestyle=dashes, linewidth=width)
        draw_band(ax, line["step"], (line["low"], line["high"]), style)
        shown = line.iloc[:: math.ceil(len(line) / MOST_MARKERS)]
        is_open = ~(shown["low"] * shown["high"] > 0)
        draw_marks(ax, shown["step"], shown["slope"], style, hollow=is_open)


def _explain(panel: Panel, found: pd.DataFrame, rows: pd.DataFrame, hue: str) -> None:
    over = summarised_over(rows.drop(columns="layer"), hue=hue)
    if over:
        panel.note(f"each layer: mean over {over}")
    panel.left_out(over)
    kind = "over runs (Student)" if over.runs else "over layers (Theil–Sen)"
    panel.band(f"95 % interval {kind}")
    is_alone = bool((found["slope"].notna() & found["low"].isna()).any())
    panel.mark("0 within the interval, or no interval" if is_alone else "0 within the interval")
    panel.baseline([0], "no trend; 1 interval in 20 excludes 0 by chance")
    if {"within", "across"} & {*found["window"]}:
        panel.line("part of a cycle; across restarts there is no line", width=PART_WIDTH)


def _slope_label(column: str) -> str:
    drawn = quantity(column)
    logarithm = r"$\log_{10}$ " if drawn.log else ""
    return f"slope of {logarithm}{drawn.symbol} per layer"
