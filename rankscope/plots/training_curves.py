"""Loss and learning rate of the training as it logged them, against the step."""

from __future__ import annotations

from collections.abc import Collection

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.errors import RankscopeError
from rankscope.plots.grid import new_figure, shared_legend
from rankscope.plots.marks import draw_band, draw_marks
from rankscope.plots.panel import drawn_on, start_at_zero
from rankscope.plots.style import SeriesStyle, figure_width, paper_look
from rankscope.plots.time_axis import time_axis
from rankscope.statistics.logged_series import (
    by_run_and_step,
    counts_tokens,
    is_logged,
    logged_values,
    running_window,
    spacing_text,
    usual_spacing,
)
from rankscope.statistics.replicates import by_group, group_names, runs_over
from rankscope.statistics.row_choice import series_names

RAW_WIDTH = 0.6
RAW_ALPHA = 0.4
RATE = "learning_rate"
HEIGHTS = (1.9, 1.15)  # of the loss, if there is one, and of the rate


def loss(
    training: pd.DataFrame,
    *,
    runs: Collection[object] | None = None,
    hue: str = "run",
    group: str | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw the training loss of every run, its validation loss and its restarts.

    Light lines are the logged values and full ones their centred running mean over about a
    twenty-fifth of the longest run, but at least the steps between two logged values; the legend
    gives its length. If that leaves nothing to average, there is one line, as logged. Markers are
    validation losses, ticks at the foot restarts. Values that are not finite leave gaps. A line of
    several runs is their mean at the steps that all of them logged, and its band spans the least to
    the greatest of their running means.

    Parameters
    ----------
    training
        One row per logged step, with columns ``run``, ``step``, ``loss`` in nats per token, and
        where there are any ``validation_loss`` and ``event``.
    runs
        All the runs of the study, or values of ``hue``, to give each the colour that it has in
        other figures; those in ``training`` if not given.
    hue, group
        The column that identifies the lines: ``run``, or one of your own; or a pattern that makes
        replicates of runs.
    legend, ax
        As in `rankscope.plots.metric`.

    Raises
    ------
    RankscopeError
        If no loss was logged.

    Examples
    --------
    >>> import rankscope as rs
    >>> ax = rs.plots.loss(rs.open_results("results").training)
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['full', 'relora', 'training, as logged', 'restart']
    """
    if not is_logged(training, "loss"):
        raise RankscopeError("no loss was logged: the training table has no value of 'loss'")
    names = group_names(runs, group)
    training, hue = by_group(training, group, hue)
    logged = training.dropna(subset=["loss"])
    over = runs_over(logged, hue)
    window = running_window(logged)
    is_averaged = False
    # A loss falls; looking for the best place among a million points takes minutes.
    names = series_names(training, hue) if names is None else names
    with drawn_on(ax, names, legend=legend, place="upper right") as panel:
        for name, series in training.groupby(hue, sort=True):
            style = panel.series(name)
            is_averaged |= _draw_training(panel.ax, by_run_and_step(series, "loss"), style, window)
            validation = by_run_and_step(series, "validation_loss").mean(axis="columns")
            draw_marks(panel.ax, validation.index, validation, style)
        if is_averaged:
            panel.line(f"training, mean of {window} steps")
            panel.line("training, as logged", width=RAW_WIDTH, alpha=RAW_ALPHA)
        else:
            panel.line("training, as logged")
        if over:
            panel.note(f"mean over {over.runs}")
            panel.band(f"min to max over {over.runs}")
            panel.left_out(over)
        if is_logged(training, "validation_loss"):
            panel.mark("validation", hollow=False)
        time_axis(panel, training, logged, hue=hue)
        panel.ax.set_ylabel("loss (nats per token)" if counts_tokens(logged) else "loss")
    return panel.ax


@paper_look()
def losses(
    training: pd.DataFrame,
    *,
    runs: Collection[object] | None = None,
    hue: str = "run",
    group: str | None = None,
) -> Figure:
    """Figure of the losses of all runs; parameters and errors as for `loss`.

    Examples
    --------
    >>> import rankscope as rs
    >>> figure = rs.plots.losses(rs.open_results("results").training)
    >>> figure.axes[0].get_ylabel()
    'loss'
    """
    width, height = mpl.rcParams["figure.figsize"]
    figure, [[ax]] = new_figure(1, 1, size=(width, min(height, 2.4)))
    loss(training, runs=runs, hue=hue, group=group, legend=False, ax=ax)
    shared_legend(figure, [ax], hole=None)
    return figure


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
    if not is_logged(training, RATE):
        raise RankscopeError(
            f"no learning rate was logged: the training table has no value of {RATE!r}"
        )
    names = group_names(runs, group)
    training, hue = by_group(training, group, hue)
    logged = training[logged_values(training, RATE).notna()]
    over = runs_over(logged, hue)
    names = series_names(training, hue) if names is None else names
    with drawn_on(ax, names, legend=legend) as panel:
        has_band = False
        for name, series in logged.groupby(hue, sort=True):
            by_run = by_run_and_step(series, RATE)
            has_band |= _draw_mean(panel.ax, by_run, panel.series(name, marker=False))
        panel.note(spacing_text(logged))
        if over.runs:
            panel.note(f"mean over {over.runs}")
        if has_band:
            panel.band(f"min to max over {over.runs}")
        panel.left_out(over)
        time_axis(panel, training, logged, hue=hue)
        panel.ax.set_ylabel("learning rate")
        start_at_zero(panel.ax)
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
    heights = HEIGHTS if is_logged(training, "loss") else HEIGHTS[1:]
    width = figure_width()
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


def _draw_training(ax: Axes, by_run: pd.DataFrame, style: SeriesStyle, window: int) -> bool:
    """Draw the logged losses and their running mean; returns whether that averages steps."""
    spacing, by_step = usual_spacing(by_run.index.to_series()), by_run.mean(axis="columns")
    # An odd number, or the mean would be of places half a spacing off.
    points = 2 * round(window / spacing / 2) + 1 if spacing > 0 else 1
    if points > 1:
        ax.plot(by_step.index, by_step, color=style.color, linewidth=RAW_WIDTH, alpha=RAW_ALPHA)
    _draw_mean(ax, by_run.rolling(points, center=True, min_periods=1).mean(), style)
    return points > 1


def _draw_mean(ax: Axes, by_run: pd.DataFrame, style: SeriesStyle) -> bool:
    """Draw the mean of the runs of a series and the band over them; returns if that has width."""
    mean, low, high = (by_run.agg(how, axis="columns") for how in ("mean", "min", "max"))
    ax.plot(mean.index, mean, color=style.color, linestyle=style.dashes)
    return draw_band(ax, mean.index, (low, high), style)
