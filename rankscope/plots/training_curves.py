"""`loss` and `losses`: what the training itself logged, against the step."""

from __future__ import annotations

from collections.abc import Collection

import matplotlib as mpl
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.errors import RankscopeError
from rankscope.plots.grid import new_figure, shared_legend
from rankscope.plots.marks import draw_band, draw_marks
from rankscope.plots.panel import drawn_on
from rankscope.plots.style import SeriesStyle, paper_look
from rankscope.plots.time_axis import time_axis
from rankscope.statistics.replicates import by_group, group_names, runs_over
from rankscope.statistics.row_choice import series_names

MEAN_OVER = 25
"""The running mean is over the longest run divided by this."""
RAW_WIDTH = 0.6
RAW_ALPHA = 0.4


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
    if not has_loss(training):
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
        if logged_values(training, "validation_loss").notna().any():
            panel.mark("validation", hollow=False)
        time_axis(panel, training, logged, hue=hue)
        panel.ax.set_ylabel("loss (nats per token)" if _counts_tokens(logged) else "loss")
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


def has_loss(training: pd.DataFrame) -> bool:
    """Whether any training loss was logged."""
    return bool(logged_values(training, "loss").notna().any())


def _counts_tokens(logged: pd.DataFrame) -> bool:
    """Whether every run logged how many tokens it read: only then is its loss per token."""
    return bool(logged_values(logged, "tokens").notna().groupby(logged["run"]).any().all())


def running_window(logged: pd.DataFrame) -> int:
    """Steps in the running mean: about a twenty-fifth of the longest run, 1, 2 or 5 times 10ᵏ.

    Never less than from one logged value to the next, which is then the number.
    """
    longest = int(logged["step"].max() - logged["step"].min())
    round_numbers = [digit * int(10**k) for k in range(9) for digit in (1, 2, 5)]
    window = max(n for n in round_numbers if n <= max(1, longest // MEAN_OVER))
    spacings = [usual_spacing(rows["step"]) for _, rows in logged.groupby("run")]
    return max(window, *(int(spacing) for spacing in spacings if spacing > 0), 1)


def usual_spacing(steps: pd.Series[int]) -> float:
    """Steps from one logged value to the next, as a rule; NaN for a single one."""
    return float(steps.drop_duplicates().sort_values().diff().median())


def logged_values(training: pd.DataFrame, column: str) -> pd.Series[float]:
    """A logged quantity as numbers, NaN where it was not logged."""
    if column not in training.columns:
        return pd.Series(float("nan"), index=training.index)
    return training[column].astype(float)


def by_run_and_step(series: pd.DataFrame, column: str) -> pd.DataFrame:
    """A logged quantity at the steps that all runs of a series have, one column per run."""
    values = logged_values(series, column).groupby([series["step"], series["run"]]).mean()
    wide: pd.DataFrame = values.dropna().unstack("run")
    return wide.dropna()


def _draw_training(ax: Axes, by_run: pd.DataFrame, style: SeriesStyle, window: int) -> bool:
    """Draw the logged losses and their running mean; returns whether that averages steps."""
    spacing, by_step = usual_spacing(by_run.index.to_series()), by_run.mean(axis="columns")
    # An odd number, or the mean would be of places half a spacing off.
    points = 2 * round(window / spacing / 2) + 1 if spacing > 0 else 1
    if points > 1:
        ax.plot(by_step.index, by_step, color=style.color, linewidth=RAW_WIDTH, alpha=RAW_ALPHA)
    draw_mean(ax, by_run.rolling(points, center=True, min_periods=1).mean(), style)
    return points > 1


def draw_mean(ax: Axes, by_run: pd.DataFrame, style: SeriesStyle) -> bool:
    """Draw the mean of the runs of a series and the band over them; returns if that has width."""
    mean, low, high = (by_run.agg(how, axis="columns") for how in ("mean", "min", "max"))
    ax.plot(mean.index, mean, color=style.color, linestyle=style.dashes)
    return draw_band(ax, mean.index, (low, high), style)
