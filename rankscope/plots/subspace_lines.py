"""`overlap` and `overlaps`: how far leading singular subspaces moved, against what chance gives."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.typing import LineStyleType

from rankscope.plots.grid import label_figure, new_figure, row_title, shared_legend
from rankscope.plots.label_texts import wrapped
from rankscope.plots.marks import END_MARK, draw_band, last_known
from rankscope.plots.metric_lines import MOST_MARKERS
from rankscope.plots.panel import CHANCE_WIDTH, Panel, drawn_on
from rankscope.plots.role_panels import limit_share
from rankscope.plots.style import DOTTED, SeriesStyle, figure_width, paper_look, series_styles
from rankscope.plots.time_axis import time_axis
from rankscope.statistics.replicates import Over, by_group
from rankscope.statistics.row_choice import series_names, step_label
from rankscope.statistics.step_summary import summarised_over
from rankscope.statistics.subspace_means import (
    Against,
    by_reference,
    known_comparisons,
    left_out,
    of_size,
    shares,
)

Share = Literal["overlap", "least_cosine", "update_energy"]
LABELS: dict[Share, str] = {
    "overlap": "overlap of the leading k-dimensional subspaces",
    "least_cosine": "smallest principal cosine of the leading k dimensions",
    "update_energy": "share of the update's energy in the leading k dimensions",
}
EARLIER: dict[Against, str] = {
    "previous": "previous checkpoint",
    "first": "first checkpoint",
    "last": "last checkpoint",
}
ROW_HEIGHT = 0.95
VISIBLE = 0.01  # a narrower band is not seen beside a line


def overlap(
    table: pd.DataFrame,
    k: int,
    *,
    measure: Share = "overlap",
    component: str = "weight",
    role: str | None = None,
    against: Against = "previous",
    hue: str = "run",
    group: str | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw the overlap of leading k-dimensional subspaces against the step, one line per run.

    1 means that the leading k singular vectors span what they spanned at the earlier checkpoint.
    The line is the mean over matrices and both sides. The dotted line in its colour is the mean
    that chance would give: for weights after a Gaussian change of the same norm; for adapters,
    merges and ``update_energy`` with unrelated subspaces, k over the dimensions. The band contains
    the mean whatever the arithmetic and the rounding of stored weights did within their bounds.
    Where the singular values have no gap at k, rounding may have chosen the subspace: these
    comparisons are left out, and the legend counts them.

    Parameters
    ----------
    table
        The table of subspaces, ``results.subspaces``. Colours are decided from all of it.
    k
        Number of leading singular vectors.
    measure
        ``overlap``, the mean of the squared principal cosines; ``least_cosine``, the smallest of
        them; or ``update_energy``: the share of the change's energy that is in the subspace of what
        it changed.
    component, role
        Which matrices.
    against
        Compared with the ``previous``, the ``first`` or the ``last`` checkpoint.
    hue, group, legend, ax
        As in `rankscope.plots.metric`.

    Raises
    ------
    RankscopeError
        If no subspaces were measured, or none of this size and component has a gap.

    Examples
    --------
    >>> import rankscope as rs
    >>> ax = rs.plots.overlap(rs.open_results("results").subspaces, 4, role="q")
    >>> ax.get_ylabel()
    'overlap of the leading 4-dimensional subspaces'
    """
    table, hue = by_group(table, group, hue)
    rows = known_comparisons(table, measure, component=component, role=role, against=against)
    rows = of_size(rows, k)
    with drawn_on(ax, series_names(table, hue), legend=legend) as panel:
        points = _draw(panel, rows, hue)
        _explain(panel, rows, points, chance(measure, component), hue=hue)
        label = LABELS[measure].replace("k-", f"{k}-").replace(" k ", f" {k} ")
        time_axis(panel, table, rows, hue=hue)
        panel.ax.set_ylabel(label)
    return panel.ax


@paper_look()
def overlaps(
    table: pd.DataFrame,
    component: str = "weight",
    *,
    measure: Share = "overlap",
    role: str | None = None,
    hue: str = "run",
    group: str | None = None,
) -> Figure:
    """Figure of `overlap`: a row for every size k, against each checkpoint that was compared with.

    Parameters and errors as there.

    Examples
    --------
    >>> import rankscope as rs
    >>> figure = rs.plots.overlaps(rs.open_results("results").subspaces)
    >>> [ax.get_title() for ax in figure.axes][:2]
    ['against the previous checkpoint', 'against the first checkpoint']
    """
    table, hue = by_group(table, group, hue)
    rows = by_reference(table, measure, component=component, role=role)
    every = pd.concat(rows.values())
    ks = sorted(every.loc[every["value"].notna(), "k"].unique())
    width, height = figure_width(), 0.5 + ROW_HEIGHT * len(ks)
    figure, grid = new_figure(len(ks), len(rows), size=(width, height))
    points: list[pd.DataFrame] = []
    for k, line in zip(ks, grid, strict=True):
        for of_reference, ax in zip(rows.values(), line, strict=True):
            panel = Panel(ax, series_styles(series_names(table, hue)))
            of_size = of_reference[of_reference["k"] == k]
            points.append(_draw(panel, of_size, hue))
            time_axis(panel, table, of_size, hue=hue)
            ax.set_xlabel("")
        row_title(line[-1], f"k = {k}")
    for against, ax in zip(rows, grid[0], strict=True):
        ax.set_title(wrapped(f"against the {EARLIER[against]}", 0.95 * width / len(rows)))
    limit_share(grid[0][0])
    null = chance(measure, component)
    _explain(Panel(grid[0][0], {}), every, pd.concat(points), null, hue=hue)
    shared_legend(figure, [ax for line in grid for ax in line], hole=None)
    label_figure(figure, step_label(table), LABELS[measure], height=height)
    return figure


def _draw(panel: Panel, rows: pd.DataFrame, hue: str) -> pd.DataFrame:
    """Draw one measure and size, a line for each series; returns its points."""
    points = shares(rows, hue=hue)
    for name, series in points.groupby(hue, sort=True):
        draw_shares(panel.ax, series, panel.series(name))
    return points


def draw_shares(
    ax: Axes,
    series: pd.DataFrame,
    style: SeriesStyle,
    *,
    x: str = "step",
    hollow: bool = False,
    dashes: LineStyleType | None = None,
    null: LineStyleType = DOTTED,
) -> None:
    """Draw means of one series with their bounds, and dotted what chance would give."""
    for _, line in series.groupby("stretch"):
        ax.plot(
            line[x],
            line["value"],
            color=style.color,
            linestyle=style.dashes if dashes is None else dashes,
            marker=style.marker,
            markerfacecolor="white" if hollow else style.color,
            markevery=math.ceil(len(line) / MOST_MARKERS),
        )
        draw_band(ax, line[x], (line["low"], line["high"]), style)
        if len(line) > 1:
            ax.plot(
                line[x],
                line["null"],
                color=style.color,
                linestyle=null,
                linewidth=CHANCE_WIDTH,
                marker=style.marker,
                markersize=END_MARK,
                markevery=last_known(line["null"]),
            )
        else:
            ax.plot(line[x], line["null"], color=style.color, linestyle="", marker="_")


def _explain(
    panel: Panel, rows: pd.DataFrame, points: pd.DataFrame, null: str, *, hue: str
) -> None:
    over = summarised_over(rows[rows["value"].notna()], hue=hue)
    if over:
        panel.line(f"mean over {over}")
    panel.line(f"by chance ({null})", DOTTED, width=CHANCE_WIDTH)
    explain_doubt(panel, rows, points, over)


def explain_doubt(panel: Panel, rows: pd.DataFrame, points: pd.DataFrame, over: Over) -> None:
    """Enter how far error and rounding may move the lines, and which comparisons are left out."""
    panel.left_out(over)
    below, above = points["value"] - points["low"], points["high"] - points["value"]
    widest = float(np.maximum(below, above).max())
    if over.runs:
        panel.band(f"min to max over {over.runs}, with error and rounding")
    elif widest >= VISIBLE:
        panel.band("bound on error and rounding")
    elif widest > 0:
        decade = 10.0 ** math.floor(math.log10(widest))
        panel.note(f"error and rounding: at most {math.ceil(widest / decade) * decade:g}")
    missing = left_out(rows)
    if missing:
        panel.note(missing)


def chance(measure: Share, component: str) -> str:
    """What the null of a measure is, in words."""
    if measure != "update_energy" and component == "weight":
        return "Gaussian change of the same norm"
    return "unrelated subspaces"
