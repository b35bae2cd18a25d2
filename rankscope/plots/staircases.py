"""`merged_rank` and `merged_ranks`: how the rank of everything merged so far grows."""

from __future__ import annotations

from dataclasses import replace

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.plots.grid import finish_grid, panel_grid
from rankscope.plots.legends import GREY, band_entry, draw_legend, line_entry, series_entry
from rankscope.plots.staircase import DASHED, THIN, draw_staircase
from rankscope.plots.style import paper_look, series_styles
from rankscope.statistics.row_choice import chosen_rows, distinct, in_order, role_title
from rankscope.statistics.step_summary import band_text, summarised_over, summary

WIDE = 3.5


def merged_rank(
    table: pd.DataFrame,
    *,
    role: str | None = None,
    hue: str = "run",
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw the rank of the sum of all merges against the step, as a staircase.

    The line is the mean numerical rank over the matrices, its band from minimum to maximum; the
    thin
    dashed line is the mean effective rank. Both start at 0 before the first merge. The wide
    grey stairs are the most that k merges of rank r can have, min(r·k, m, n); the dotted line is
    min(m, n).

    Parameters
    ----------
    table
        The metrics table, with ``merged_total`` rows. Colours are decided from all of it.
    role
        Which role; all if not given.
    hue
        The column that tells the lines apart.
    legend
        Whether to draw a legend; its entries are there either way.
    ax
        Where to draw; the current axes if not given.

    Raises
    ------
    RankscopeError
        If nothing was merged.
    """
    rows = chosen_rows(table, component="merged_total", role=role)
    styles = series_styles(distinct(table, hue))
    ends = table.groupby(hue)["step"].max()
    ranks, effective = (summary(rows, c, hue=hue) for c in ("numerical_rank", "effective_rank"))
    ax = plt.gca() if ax is None else ax
    for name, series in ranks.groupby(hue, sort=True):
        series_entry(ax, name, replace(styles[name], dashes="-"))
        spread = effective[effective[hue] == name]
        stairs, dashed = (_stairs(part, ends[name]) for part in (series, spread))
        # Only the merges are points: the first and the last row extend the staircase.
        draw_staircase(
            ax,
            stairs,
            stairs.iloc[1:-1],
            dashed.set_index("step")["centre"],
            styles[name],
            tread="post",
        )
        _draw_most(ax, _most(table[table[hue] == name], role), end=int(ends[name]))
    for least_side in sorted(set(rows[["rows", "cols"]].min(axis=1))):
        ax.axhline(float(least_side), color=GREY, linestyle=":", linewidth=THIN)
    over = summarised_over(rows, hue=hue)
    _explain(ax, over=over, has_band=bool((ranks["low"] < ranks["high"]).any()))
    ax.set(
        xlabel="step",
        ylabel=f"rank of all merges, mean over {over}" if over else "rank of all merges",
    )
    ax.set_ylim(bottom=0, auto=True)
    if legend:
        draw_legend(ax)
    return ax


@paper_look()
def merged_ranks(table: pd.DataFrame) -> Figure:
    """Figure of `merged_rank` with a panel for every role; errors as there."""
    rows = chosen_rows(table, component="merged_total")
    roles = in_order(rows["role"])
    figure, panels, hole = panel_grid(len(roles))
    for role, ax in zip(roles, panels, strict=True):
        merged_rank(table, role=role, legend=False, ax=ax)
        ax.set_title(role_title(role, rows[rows["role"] == role]))
    return finish_grid(figure, panels, hole=hole)


def _stairs(series: pd.DataFrame, end: int) -> pd.DataFrame:
    """A summary from rank 0 at step 0 on, and up to the run's last step."""
    flat = {"step": 0, "centre": 0.0, "low": 0.0, "high": 0.0}
    values = series[list(flat)].fillna(0.0)
    last = values.iloc[[-1]].assign(step=end)
    return pd.concat([pd.DataFrame([flat]), values, last], ignore_index=True)


def _most(table: pd.DataFrame, role: str | None) -> pd.Series[float]:
    """The most that sums of merges can have, mean over layers by step: ranks up to min(m, n)."""
    merges = table[table["component"] == "merge"].sort_values("step")
    if role is not None:
        merges = merges[merges["role"] == role]
    matrices = merges.groupby(["layer", "role", "name"], dropna=False)
    added = matrices["max_rank"].cumsum().astype(float)
    most = added.clip(upper=merges[["rows", "cols"]].min(axis=1))
    return most.groupby(merges["step"]).mean()


def _draw_most(ax: Axes, most: pd.Series[float], *, end: int) -> None:
    if most.empty:
        return
    steps = [0, *most.index, end]
    heights = [0.0, *most, most.iloc[-1]]
    ax.plot(steps, heights, color="0.82", linewidth=WIDE, drawstyle="steps-post", zorder=1)
    ax.plot([], [], color="0.82", linewidth=WIDE, label="adapters' ranks added up")


def _explain(ax: Axes, *, over: str, has_band: bool) -> None:
    line_entry(ax, "numerical rank", "-", width=1.1)
    line_entry(ax, "effective rank", DASHED, width=THIN)
    line_entry(ax, "min(m, n)", ":", width=THIN)
    if has_band:
        band_entry(ax, band_text("numerical_rank", over))
