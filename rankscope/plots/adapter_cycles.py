"""`adapter_rank`, `subspaces` and their figure: what adapters were given, cycle by cycle."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.errors import RankscopeError
from rankscope.plots.grid import finish_grid, panel_grid
from rankscope.plots.panel import drawn_on, start_at_zero
from rankscope.plots.staircases import THIN, draw_staircase
from rankscope.plots.style import DASHED, SeriesStyle, paper_look
from rankscope.plots.time_axis import label_steps
from rankscope.results.results import Results
from rankscope.statistics.cycle_ranks import begun_cycles, cycle_rows, ranks_by_step
from rankscope.statistics.logged_series import is_logged
from rankscope.statistics.replicates import by_group
from rankscope.statistics.row_choice import by_run, in_order, role_title, series_names
from rankscope.statistics.step_summary import summarised_over

MEAN = "mean over adapters"


def adapter_rank(
    table: pd.DataFrame,
    *,
    training: pd.DataFrame | None = None,
    role: str | None = None,
    hue: str = "run",
    group: str | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw the rank of the adapters against the step, as a staircase: one line per run.

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
    hue, group, legend, ax
        As in `rankscope.plots.metric`.

    Raises
    ------
    RankscopeError
        If the table has no adapters and no merges of this role.

    Examples
    --------
    >>> import rankscope as rs
    >>> ax = rs.plots.adapter_rank(rs.open_results("results").metrics, role="q")
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['relora', 'mean over layers', 'effective rank when merged']
    """
    table, hue = by_group(table, group, hue)
    rows = cycle_rows(table, role)
    if rows.empty:
        whose = "" if role is None else f" of role {role!r}"
        raise RankscopeError(f"the table holds no adapters and no merges{whose}: no rank to draw")
    over = summarised_over(rows, hue=hue)
    with drawn_on(ax, series_names(table, hue), legend=legend) as panel:
        has_band = False
        for name, series in rows.groupby(hue, sort=True):
            starts = begun_cycles(training, series["run"].unique())["step"]
            ranks = ranks_by_step(series, {*table.loc[table[hue] == name, "step"], *starts}, hue)
            has_band |= bool((ranks["low"] < ranks["high"]).any())
            # A row has the rank of the cycle that it ends or is in: the tread is to its left.
            draw_staircase(
                panel.ax,
                ranks,
                ranks[ranks["merged"].eq(True)],
                ranks.set_index("step")["effective"],
                panel.series(name, dashes="-"),
                tread="pre",
            )
        panel.summarised("max_rank", over, has_band=has_band)
        if (rows["component"] == "merge").any():
            panel.line("effective rank when merged", DASHED, width=THIN)
        label_steps(panel.ax, table, rows)
        panel.ax.set_ylabel("adapter rank")
        start_at_zero(panel.ax)
    return panel.ax


def subspaces(
    training: pd.DataFrame,
    *,
    runs: Collection[object] | None = None,
    hue: str = "run",
    group: str | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw which subspaces the adapters were given at every restart: two lines per run.

    The full line is the share of the gradient's energy that is in the rows of the new A, the
    dashed one, with hollow markers, the overlap of these rows with those of the cycle before.
    Both are in [0, 1], and means over all adapters of a model; over runs, where a line is of
    several.

    Parameters
    ----------
    training
        The training log, with columns ``run``, ``step``, ``captured_energy`` and ``overlap``.
    runs
        All the runs of the study, or values of ``hue``, to keep their colours; those in
        ``training`` if not given.
    hue, group, legend, ax
        As in `rankscope.plots.metric`.

    Raises
    ------
    RankscopeError
        If no captured energy was logged.

    Examples
    --------
    >>> import pandas as pd
    >>> import rankscope as rs
    >>> training = pd.DataFrame({"run": "a", "step": [0, 50], "captured_energy": [0.2, 0.4]})
    >>> ax = rs.plots.subspaces(training)
    >>> ax.get_ylabel()
    'mean over adapters'
    """
    if not is_logged(training, "captured_energy"):
        raise RankscopeError("the training table has no value of 'captured_energy'")
    training, hue = by_group(training, group, hue)
    with drawn_on(
        ax, series_names(training, hue) if runs is None else runs, legend=legend
    ) as panel:
        for name, series in training.groupby(hue, sort=True):
            restarts = begun_cycles(series, series["run"].unique())
            if restarts.empty:
                continue
            style = panel.series(name, dashes="-")
            _draw_shares(panel.ax, restarts, "captured_energy", style, hollow=False)
            _draw_shares(panel.ax, restarts, "overlap", style, hollow=True)
        panel.mark("gradient energy captured by new A", hollow=False)
        panel.mark("overlap of new and old A")
        label_steps(panel.ax, training, training.dropna(subset=["captured_energy"]))
        panel.ax.set(ylabel=MEAN, ylim=(0, 1.03))
    return panel.ax


@paper_look()
def adapter_ranks(results: Results, *, hue: str = "run", group: str | None = None) -> Figure:
    """Figure of `adapter_rank` with a panel for every role, and one of `subspaces` after them.

    Either part is left out where there is no data for it.

    Parameters
    ----------
    results
        What an analysis stored: its metrics and the training log.
    hue, group
        The column of the metrics, one value per run, that identifies the lines; or a pattern that
        groups runs into replicates.

    Raises
    ------
    RankscopeError
        If there are no adapters, no merges, and no captured energy in the log.

    Examples
    --------
    >>> import rankscope as rs
    >>> figure = rs.plots.adapter_ranks(rs.open_results("results"))
    >>> figure.get_supylabel()
    'adapter rank'
    """
    table, hue = by_group(results.metrics, group, hue)
    training = results.training
    rows = cycle_rows(table)
    roles, has_shares = in_order(rows["role"]), is_logged(training, "captured_energy")
    if not roles and not has_shares:
        raise RankscopeError("the results hold no adapters, no merges and no captured energy")
    figure, panels, hole = panel_grid(len(roles) + has_shares)
    for role, ax in zip(roles, panels, strict=False):
        adapter_rank(table, training=training, role=role, hue=hue, legend=False, ax=ax)
        ax.set_title(role_title(role, rows[rows["role"] == role]))
    if has_shares:
        panels[-1] = _with_own_scale(figure, panels)
        training = training.assign(**{hue: training["run"].map(by_run(table, hue))})
        subspaces(training, runs=series_names(table, hue), hue=hue, legend=False, ax=panels[-1])
        panels[-1].set_title("new subspaces")
    finish_grid(figure, panels, hole=hole)
    if roles and has_shares:
        panels[-1].set_ylabel(MEAN)
    return figure


def _with_own_scale(figure: Figure, panels: list[Axes]) -> Axes:
    """Put new axes, which share only the steps with the other panels, in place of the last one."""
    cell = panels[-1].get_subplotspec()
    assert cell is not None
    panels[-1].remove()
    ax = figure.add_subplot(cell, sharex=panels[0] if len(panels) > 1 else None)
    ax.tick_params(which="both")
    return ax


def _draw_shares(
    ax: Axes, restarts: pd.DataFrame, column: str, style: SeriesStyle, *, hollow: bool
) -> None:
    ax.plot(
        restarts["step"],
        restarts[column],
        color=style.color,
        linestyle=DASHED if hollow else "-",
        linewidth=THIN if hollow else None,
        marker=style.marker,
        markerfacecolor="white" if hollow else style.color,
    )
