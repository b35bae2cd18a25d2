"""Ranks as staircases: `merged_rank` and `merged_ranks`, how that of all merges so far grows."""

from __future__ import annotations

from typing import Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.plots.grid import panel_figure
from rankscope.plots.marks import END_MARK, draw_band, draw_marks, last_known
from rankscope.plots.panel import GREY, Panel, drawn_on, start_at_zero
from rankscope.plots.style import DASHED, DOTTED, SeriesStyle, paper_look
from rankscope.plots.time_axis import label_steps
from rankscope.statistics.cycle_ranks import merged_stairs, most_rank
from rankscope.statistics.replicates import Over, by_group
from rankscope.statistics.row_choice import chosen_rows, role_titles, series_names
from rankscope.statistics.step_summary import band_text, summarised_over, summary

THIN, WIDE = 0.7, 3.5
SMALL = 2.5
PALE = "0.82"


def merged_rank(
    table: pd.DataFrame,
    *,
    role: str | None = None,
    hue: str = "run",
    group: str | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw the rank of the sum of all merges against the step, as a staircase.

    The line is the mean numerical rank over the matrices, its band from minimum to maximum; the
    thin dashed line is the mean effective rank. Both start at 0 before the first merge. The wide
    grey stairs are the most that k merges of rank r can have, min(r·k, m, n); the dotted line is
    min(m, n).

    Parameters
    ----------
    table
        The metrics table, with ``merged_total`` rows. Colours are decided from all of it.
    role
        Which role; all if not given.
    hue, group, legend, ax
        As in `rankscope.plots.metric`.

    Raises
    ------
    RankscopeError
        If nothing was merged.

    Examples
    --------
    >>> import rankscope as rs
    >>> ax = rs.plots.merged_rank(rs.open_results("results").metrics, role="q")
    >>> ax.get_ylabel()
    'rank of the sum of merges, mean over layers'
    """
    table, hue = by_group(table, group, hue)
    rows = chosen_rows(table, component="merged_total", role=role)
    ends = table.groupby(hue)["step"].max()
    ranks, effective = (summary(rows, c, hue=hue) for c in ("numerical_rank", "effective_rank"))
    over = summarised_over(rows, hue=hue)
    with drawn_on(ax, series_names(table, hue), legend=legend) as panel:
        for name, series in ranks.groupby(hue, sort=True):
            stairs = merged_stairs(series, ends[name])
            dashed = merged_stairs(effective[effective[hue] == name], ends[name])
            # Only the merges are points: the first and the last row extend the staircase.
            draw_staircase(
                panel.ax,
                stairs,
                stairs.iloc[1:-1],
                dashed.set_index("step")["centre"],
                panel.series(name, dashes="-"),
                tread="post",
            )
            _draw_most(panel.ax, most_rank(table[table[hue] == name], role), end=int(ends[name]))
        for least_side in sorted(set(rows[["rows", "cols"]].min(axis=1))):
            panel.ax.axhline(float(least_side), color=GREY, linestyle=DOTTED, linewidth=THIN)
        _explain(panel, over=over, has_band=bool((ranks["low"] < ranks["high"]).any()))
        label = "rank of the sum of merges"
        label_steps(panel.ax, table, table[table[hue].isin(rows[hue])])
        panel.ax.set_ylabel(f"{label}, mean over {over}" if over else label)
        start_at_zero(panel.ax)
    return panel.ax


@paper_look()
def merged_ranks(table: pd.DataFrame, *, hue: str = "run", group: str | None = None) -> Figure:
    """Figure of `merged_rank` with a panel for every role; parameters and errors as there.

    Examples
    --------
    >>> import rankscope as rs
    >>> figure = rs.plots.merged_ranks(rs.open_results("results").metrics)
    >>> [ax.get_title() for ax in figure.axes][:2]
    ['q  16×16', 'k  8×16']
    """
    table, hue = by_group(table, group, hue)
    titles = role_titles(chosen_rows(table, component="merged_total"))
    return panel_figure(
        titles, lambda role, ax: merged_rank(table, role=role, hue=hue, legend=False, ax=ax)
    )


def draw_staircase(
    ax: Axes,
    ranks: pd.DataFrame,
    merges: pd.DataFrame,
    effective: pd.Series[float],
    style: SeriesStyle,
    *,
    tread: Literal["pre", "post"],
) -> None:
    """Draw the stairs of one series: their mean, range, merges, and an effective rank.

    Parameters
    ----------
    ax
        Where to draw.
    ranks
        ``step``, ``centre``, ``low`` and ``high``; the band is left out where it has no width.
    merges
        Rows of ``ranks`` that get a marker.
    effective
        Effective rank by step, drawn dashed.
    style
        Colour and marker of the series.
    tread
        Whether a value holds before its step ("pre") or from it on ("post").
    """
    color, steps, stairs = style.color, ranks["step"], f"steps-{tread}"
    ax.plot(steps, ranks["centre"], color=color, drawstyle=stairs)
    draw_marks(ax, merges["step"], merges["centre"], style, size=SMALL)
    draw_band(ax, steps, (ranks["low"], ranks["high"]), style, stairs=tread)
    ax.plot(
        effective.index,
        effective,
        color=color,
        linewidth=THIN,
        linestyle=DASHED,
        drawstyle=stairs,
        marker=style.marker,
        markersize=END_MARK,
        markevery=last_known(effective),
    )


def _draw_most(ax: Axes, most: pd.Series[float], *, end: int) -> None:
    if most.empty:
        return
    steps = [0, *most.index, end]
    heights = [0.0, *most, most.iloc[-1]]
    ax.plot(steps, heights, color=PALE, linewidth=WIDE, drawstyle="steps-post", zorder=1)
    ax.plot([], [], color=PALE, linewidth=WIDE, label="sum of the adapters' ranks")


def _explain(panel: Panel, *, over: Over, has_band: bool) -> None:
    panel.line("numerical rank")
    panel.line("effective rank", DASHED, width=THIN)
    panel.line("min(m, n)", DOTTED, width=THIN)
    if has_band:
        panel.band(band_text("numerical_rank", over))
    panel.left_out(over)
