"""`adapter_rank` and `adapter_ranks`: the ranks that adapters had, cycle by cycle."""

from __future__ import annotations

from dataclasses import replace

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.errors import RankscopeError
from rankscope.plots.grid import finish_grid, panel_grid
from rankscope.plots.legends import band_entry, draw_legend, line_entry, series_entry
from rankscope.plots.staircase import DASHED, THIN, draw_staircase
from rankscope.plots.style import paper_look, series_styles
from rankscope.plots.subspace_shares import MEAN, begun_cycles, has_subspaces, subspaces
from rankscope.results.results import Results
from rankscope.statistics.row_choice import distinct, in_order, role_title
from rankscope.statistics.step_summary import band_text, line_text, summarised_over, summary


def adapter_rank(
    table: pd.DataFrame,
    *,
    training: pd.DataFrame | None = None,
    role: str | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw the rank of the adapters against the step, as a staircase: one line a run.

    The line is the mean over the matrices, its band from minimum to maximum; markers are merges,
    at the end of the cycle whose rank they have. The thin dashed line is the mean effective rank
    of what a cycle merged, 0 if that is zero. Gaps are steps without adapters.

    Parameters
    ----------
    table
        The metrics table, with ``adapter`` or ``merge`` rows. Colours are decided from all of it.
    training
        The training log. Its restarts say when adapters began; without it, those after a
        full-rank phase seem to begin at the last checkpoint before them.
    role
        Which role; all if not given.
    legend
        Whether to draw a legend; its entries are there either way.
    ax
        Where to draw; the current axes if not given.

    Raises
    ------
    RankscopeError
        If the table has no adapters and no merges of this role.
    """
    rows = _adapters(table, role)
    if rows.empty:
        whose = "" if role is None else f" of role {role!r}"
        raise RankscopeError(f"the table holds no adapters and no merges{whose}: no rank to draw")
    styles = series_styles(distinct(table, "run"))
    ax = plt.gca() if ax is None else ax
    for run, of_run in rows.groupby("run", sort=True):
        starts = begun_cycles(training, run)["step"]
        steps = sorted({*table.loc[table["run"] == run, "step"], *starts})
        style = replace(styles[run], dashes="-")
        series_entry(ax, run, style)
        ranks = _by_step(of_run, steps)
        # A row has the rank of the cycle that it ends or lies in: the tread is to the left of it.
        draw_staircase(
            ax,
            ranks,
            ranks[ranks["merged"].eq(True)],
            ranks.set_index("step")["effective"],
            style,
            tread="pre",
        )
    over = summarised_over(rows)
    if over:
        line_entry(ax, line_text("max_rank", over), "-", width=1.1)
    if (rows.groupby(["run", "step"])["max_rank"].nunique() > 1).any():
        band_entry(ax, band_text("max_rank", over))
    if (rows["component"] == "merge").any():
        line_entry(ax, "effective rank when merged", DASHED, width=THIN)
    ax.set(xlabel="step", ylabel="adapter rank")
    # Still automatic at the top: another panel that shares the axis may need more.
    ax.set_ylim(bottom=0, auto=True)
    if legend:
        draw_legend(ax)
    return ax


@paper_look()
def adapter_ranks(results: Results) -> Figure:
    """Figure of `adapter_rank` with a panel for every role, and one of `subspaces` after them.

    Either part is left out where nothing is known of it.

    Parameters
    ----------
    results
        What an analysis stored: its metrics and the training log.

    Raises
    ------
    RankscopeError
        If there are no adapters, no merges, and no captured energy in the log.
    """
    table, training = results.metrics, results.training
    rows = _adapters(table)
    roles, has_shares = in_order(rows["role"]), has_subspaces(training)
    if not roles and not has_shares:
        raise RankscopeError("the results hold no adapters, no merges and no captured energy")
    figure, panels, hole = panel_grid(len(roles) + has_shares)
    for role, ax in zip(roles, panels, strict=False):
        adapter_rank(table, training=training, role=role, legend=False, ax=ax)
        ax.set_title(role_title(role, rows[rows["role"] == role]))
    if has_shares:
        panels[-1] = _with_own_scale(figure, panels)
        runs = [str(run) for run in distinct(table, "run")]
        subspaces(training, runs=runs, legend=False, ax=panels[-1])
        panels[-1].set_title("new subspaces")
    finish_grid(figure, panels, hole=hole)
    if roles and has_shares:
        panels[-1].set_ylabel(MEAN)
    return figure


def has_varied_ranks(table: pd.DataFrame) -> bool:
    """Whether the adapters or merges of a run are not all of one rank."""
    rows = _adapters(table)
    return bool((rows.groupby("run")["max_rank"].nunique() > 1).any())


def _adapters(table: pd.DataFrame, role: str | None = None) -> pd.DataFrame:
    """Rows that tell the rank of a cycle's adapters: merges, and adapters of the other steps."""
    if not {"adapter", "merge"} & {*distinct(table, "component")}:
        return table.iloc[:0]
    is_merge = table["component"] == "merge"
    merges = pd.MultiIndex.from_frame(table.loc[is_merge, ["run", "step"]])
    # An adapter saved at the step of a merge may already be the next one.
    is_known = pd.MultiIndex.from_frame(table[["run", "step"]]).isin(merges)
    rows = table[is_merge | ((table["component"] == "adapter") & ~is_known)]
    return rows if role is None else rows[rows["role"] == role]


def _by_step(rows: pd.DataFrame, steps: list[int]) -> pd.DataFrame:
    """Ranks of one run at all its steps, NaN where it has no adapters; ``effective`` if merged."""
    merges = rows[rows["component"] == "merge"]
    effective = summary(merges, "effective_rank").set_index("step")["centre"].fillna(0.0)
    ranks = summary(rows, "max_rank").set_index("step")[["centre", "low", "high"]]
    ranks["merged"] = ranks.index.isin(effective.index)
    ranks = ranks.reindex(steps)
    # A step between two restarts belongs to the cycle that the next merge ends.
    ranks["effective"] = effective.reindex(steps).bfill().where(ranks["centre"].notna())
    return ranks.rename_axis("step").reset_index()


def _with_own_scale(figure: Figure, panels: list[Axes]) -> Axes:
    """Put new axes, which share only the steps with the other panels, in the last one's place."""
    place = panels[-1].get_subplotspec()
    assert place is not None
    panels[-1].remove()
    ax = figure.add_subplot(place, sharex=panels[0] if len(panels) > 1 else None)
    ax.tick_params(which="both")
    return ax
