"""`learning_rate` and `learning_rates`: the schedule of each run as logged, with its restarts."""

from __future__ import annotations

from collections.abc import Collection

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.errors import RankscopeError
from rankscope.plots.grid import new_figure, shared_legend
from rankscope.plots.panel import drawn_on
from rankscope.plots.style import paper_look
from rankscope.plots.time_axis import time_axis
from rankscope.plots.training_curves import (
    by_run_and_step,
    draw_mean,
    has_loss,
    logged_values,
    loss,
    usual_spacing,
)
from rankscope.statistics.replicates import by_group, group_names, runs_over
from rankscope.statistics.row_choice import series_names

COLUMN = "learning_rate"
HEIGHTS = (1.9, 1.15)  # of the loss, if there is one, and of the rate


def learning_rate(
    training: pd.DataFrame,
    *,
    runs: Collection[object] | None = None,
    hue: str = "run",
    group: str | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw the learning rate of every run against the step, and mark its restarts.

    Logged values are joined by straight lines: what a schedule does between two logged steps, such
    as the warm-up after a restart, is not visible, and the legend gives their distance. A line of
    several runs is their mean at the steps that all of them logged, and its band spans the least to
    the greatest.

    Parameters
    ----------
    training
        One row per logged step, with columns ``run``, ``step``, ``learning_rate``, and where there
        are any ``event``.
    runs
        All the runs of the study, or values of ``hue``, to keep their colours; those in
        ``training`` if not given.
    hue, group
        The column that identifies the lines: ``run``, or one of your own; or a pattern that makes
        replicates of runs.
    legend, ax
        As in `rankscope.plots.metric`.

    Raises
    ------
    RankscopeError
        If no learning rate was logged.

    Examples
    --------
    >>> import pandas as pd
    >>> import rankscope as rs
    >>> training = pd.DataFrame({"run": "a", "step": [0, 10, 20], "learning_rate": [0, 0.1, 0.2]})
    >>> ax = rs.plots.learning_rate(training)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['a', 'logged every 10 steps']
    """
    if not has_learning_rate(training):
        raise RankscopeError(
            f"no learning rate was logged: the training table has no value of {COLUMN!r}"
        )
    names = group_names(runs, group)
    training, hue = by_group(training, group, hue)
    logged = training[logged_values(training, COLUMN).notna()]
    over = runs_over(logged, hue)
    names = series_names(training, hue) if names is None else names
    with drawn_on(ax, names, legend=legend) as panel:
        has_band = False
        for name, series in logged.groupby(hue, sort=True):
            by_run = by_run_and_step(series, COLUMN)
            has_band |= draw_mean(panel.ax, by_run, panel.series(name, marker=False))
        panel.note(_as_logged(logged))
        if over.runs:
            panel.note(f"mean over {over.runs}")
        if has_band:
            panel.band(f"min to max over {over.runs}")
        panel.left_out(over)
        time_axis(panel, training, logged, hue=hue)
        panel.ax.set_ylabel("learning rate")
        # Still automatic at the top: another panel that shares the axis may need more.
        panel.ax.set_ylim(bottom=0, auto=True)
    return panel.ax


@paper_look()
def learning_rates(
    training: pd.DataFrame,
    *,
    runs: Collection[object] | None = None,
    hue: str = "run",
    group: str | None = None,
) -> Figure:
    """Figure of the learning rate of all runs, below their losses if any was logged.

    Parameters and errors as for `learning_rate`; the losses are drawn as in `loss`.

    Examples
    --------
    >>> import pandas as pd
    >>> import rankscope as rs
    >>> training = pd.DataFrame({"run": "a", "step": [0, 10], "learning_rate": [0.1, 0.2]})
    >>> figure = rs.plots.learning_rates(training.assign(loss=[5.0, 4.0]))
    >>> [ax.get_ylabel() for ax in figure.axes]
    ['loss', 'learning rate']
    """
    heights = HEIGHTS if has_loss(training) else HEIGHTS[1:]
    width = float(mpl.rcParams["figure.figsize"][0])
    figure, grid = new_figure(
        len(heights), 1, size=(width, 0.4 + sum(heights)), share_y=False, ratios=heights
    )
    panels = [line[0] for line in grid]
    if len(panels) > 1:
        loss(training, runs=runs, hue=hue, group=group, legend=False, ax=panels[0])
        panels[0].set_xlabel("")
    learning_rate(training, runs=runs, hue=hue, group=group, legend=False, ax=panels[-1])
    shared_legend(figure, panels, hole=None)
    figure.align_ylabels()
    return figure


def has_learning_rate(training: pd.DataFrame) -> bool:
    """Whether any learning rate was logged."""
    return bool(logged_values(training, COLUMN).notna().any())


def _as_logged(logged: pd.DataFrame) -> str:
    """In words, how far apart the logged steps of the runs are."""
    spacings = [usual_spacing(rows["step"]) for _, rows in logged.groupby("run")]
    known = sorted({int(spacing) for spacing in spacings if spacing > 0})
    if not known:
        return "as logged"
    low, high = known[0], known[-1]
    if (low, high) == (1, 1):
        return "logged every step"
    return f"logged every {low} steps" if low == high else f"logged every {low}–{high} steps"
