"""Figures of one metric with a panel for every role: `per` and `condition_number`."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.typing import LineStyleType

from rankscope.plots.grid import finish_grid, panel_grid
from rankscope.plots.legends import line_entry
from rankscope.plots.metric_lines import metric
from rankscope.plots.style import paper_look, series_styles
from rankscope.statistics.row_choice import chosen_rows, distinct, in_order, role_title

NEAR_ZERO, HALF = 0.3, 0.5
LIMIT_DASHES, LIVE_DASHES = (0, (6, 2)), (0, (6, 2, 1, 2))
LIMITED_BY = {"adapter": "adapter rank", "merge": "adapter rank", "ov": "head size"}


@paper_look()
def per(table: pd.DataFrame, component: str = "weight") -> Figure:
    """Figure of the proportional effective rank over training, a panel for every role.

    Lines, bands and hollow markers as in `metric`. A dotted line is the PER that a Gaussian matrix
    of the shape would have, without which roles of different shapes are not comparable. Where
    the construction limits the rank, a thin line in the run's colour is this limit over
    min(m, n): of adapters, merges and OV circuits their own. Of updates, over a whole cycle it is
    the adapter rank r; between two states of live adapters, whose difference is drawn, up to 2r.

    Parameters
    ----------
    table
        The metrics table.
    component
        ``weight``, ``update``, ``adapter``, ``gradient``, …

    Raises
    ------
    RankscopeError
        If the table has no rows of this component.
    """
    figure, panels, hole = _role_panels(table, "per", component)
    rows = chosen_rows(table, component=component)
    for role, ax in zip(in_order(rows["role"]), panels, strict=True):
        draw_gaussian_baseline(ax, rows[rows["role"] == role])
        draw_rank_limit(ax, table, component=component, role=role)
    _limit_share(panels[0])
    return finish_grid(figure, panels, hole=hole)


@paper_look()
def condition_number(
    table: pd.DataFrame, component: str = "weight", *, column: str | None = None
) -> Figure:
    """Figure of condition numbers over training on a log axis, a panel for every role.

    Medians and 10–90 % bands over layers; a median that is only a lower bound has an arrow.

    Parameters
    ----------
    table
        The metrics table.
    component
        ``weight``, ``update``, ``adapter``, …
    column
        Which condition number. If not given, ``condition_number`` for whole weights, and for
        everything else ``condition_number_r``, since what has low rank by construction has an
        infinite κ; ``condition_number_90`` is the steady one for square matrices. It depends on
        the rank r that it is taken at, which stands in the title of each panel.

    Raises
    ------
    RankscopeError
        If the table has no rows of this component, or the column is unknown.
    """
    if column is None:
        column = "condition_number" if component in ("weight", "base") else "condition_number_r"
    figure, panels, hole = _role_panels(table, column, component)
    return finish_grid(figure, panels, hole=hole)


def _role_panels(
    table: pd.DataFrame, column: str, component: str
) -> tuple[Figure, list[Axes], Axes | None]:
    rows = chosen_rows(table, component=component)
    roles = in_order(rows["role"])
    figure, panels, hole = panel_grid(len(roles))
    for role, ax in zip(roles, panels, strict=True):
        metric(table, column, component=component, role=role, legend=False, ax=ax)
        name, own = "OV circuit" if component.startswith("ov") else role, rows[rows["role"] == role]
        told = _ranks_told(own) if column == "condition_number_r" else ""
        ax.set_title(role_title(name, own) + told)
    return figure, panels, hole


def _ranks_told(rows: pd.DataFrame) -> str:
    """At which ranks condition numbers are taken, and whether runs differ in them."""
    known = rows.dropna(subset=["numerical_rank", "condition_number_r"])
    if known.empty:
        return ""
    ranks = known["numerical_rank"].astype(int)
    medians = ranks.groupby(known["run"]).median()
    low, high = ranks.min(), ranks.max()
    told = f", r = {low}" if low == high else f", r = {low}–{high}"
    return f"{told} by run" if medians.nunique() > 1 else told


def _limit_share(ax: Axes) -> None:
    """Show a share from 0 to 1, without an end that nothing comes near to."""
    low, high = ax.get_ylim()
    bottom = 0 if low < NEAR_ZERO else low
    ax.set_ylim(bottom, high if high < HALF else 1.02 if bottom == 0 else min(high, 1.02))


def draw_gaussian_baseline(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw the PER of a Gaussian matrix of every shape among the rows as a dotted line.

    Not for matrices whose construction keeps them far from it, such as adapters.
    """
    whole = rows[rows["max_rank"] == rows[["rows", "cols"]].min(axis=1)]
    baselines = sorted(set(whole["per_gaussian"].dropna().round(6)))
    for baseline in baselines:
        ax.axhline(baseline, color="0.35", linestyle=":", linewidth=0.9, zorder=1)
    if baselines:
        line_entry(ax, "Gaussian matrix", ":")


def draw_rank_limit(ax: Axes, table: pd.DataFrame, *, component: str, role: str) -> None:
    """Draw the most that PER can be by construction, in each run's colour, where that is below 1.

    The line of whole cycles is that of the run's adapters. Of a change between two states of live
    adapters it is that of the change itself: there the adapters are subtracted, not the weights.
    A change across restarts has no limit that is known.
    """
    own = table[(table["component"] == component) & (table["role"] == role)]
    windows = own["window"].fillna("") if "window" in own else pd.Series("", index=own.index)
    if component != "update":
        _draw_limits(ax, table, own, f"{LIMITED_BY.get(component, 'rank')} / min(m, n)")
        return
    adapters = table[(table["component"] == "adapter") & (table["role"] == role)]
    whole = adapters[adapters["run"].isin(own.loc[windows == "cycle", "run"])]
    _draw_limits(ax, table, whole, "adapter rank / min(m, n)")
    live = own[~windows.isin(["cycle", "across"]) & (own["max_rank"] < _sides(own))]
    label = "rank of a change of live adapters (at most 2r) / min(m, n)"
    _draw_limits(ax, table, live, label, dashes=LIVE_DASHES)


def _draw_limits(
    ax: Axes,
    table: pd.DataFrame,
    rows: pd.DataFrame,
    label: str,
    *,
    dashes: LineStyleType = LIMIT_DASHES,
) -> None:
    share = (rows["max_rank"] / _sides(rows)).astype(float)
    limits = share.groupby(rows["run"]).max()
    styles = series_styles(distinct(table, "run"))
    for run, limit in limits[limits < 1].items():
        ax.axhline(limit, color=styles[run].color, linestyle=dashes, linewidth=0.6)
    if (limits < 1).any():
        line_entry(ax, label, dashes, width=0.6)


def _sides(rows: pd.DataFrame) -> pd.Series[int]:
    return rows[["rows", "cols"]].min(axis=1)
