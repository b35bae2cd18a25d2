"""`loss` and `losses`: what the training itself logged, against the step."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.errors import RankscopeError
from rankscope.plots.grid import new_figure
from rankscope.plots.legends import draw_legend, line_entry, mark_entry, series_entry
from rankscope.plots.style import SeriesStyle, paper_look, series_styles

MEAN_OVER = 25
"""The running mean is over this part of the longest run."""
RAW_WIDTH = 0.6
RAW_ALPHA = 0.4


def loss(
    training: pd.DataFrame,
    *,
    runs: list[str] | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw the training loss of every run, its validation loss and its restarts.

    Light lines are the logged values and full ones their centred running mean over about a
    twenty-fifth of the longest run, which the legend gives in steps. Markers are validation losses,
    ticks at the foot the restarts. Values that are not finite leave gaps.

    Parameters
    ----------
    training
        One row a logged step, with columns ``run``, ``step``, ``loss`` in nats a token, and where
        there are any ``validation_loss`` and ``event``.
    runs
        All the runs of the study, to give a run the colour that it has in other figures; those
        in ``training`` if not given.
    legend
        Whether to draw a legend; its entries are there either way.
    ax
        Where to draw; the current axes if not given.

    Raises
    ------
    RankscopeError
        If no loss was logged.
    """
    if not has_loss(training):
        raise RankscopeError("no loss was logged: the training table has no value of 'loss'")
    ax = plt.gca() if ax is None else ax
    styles = series_styles(training["run"] if runs is None else runs)
    logged = training.dropna(subset=["loss"])
    window = running_window(logged)
    for run, series in training.groupby("run", sort=True):
        series_entry(ax, run, styles[run])
        _draw_training(ax, series.dropna(subset=["loss"]), styles[run], window)
        _draw_validation(ax, series, styles[run])
        _draw_restarts(ax, series, styles[run])
    line_entry(ax, f"training, mean of {window} steps", "-", width=1.1)
    line_entry(ax, "training, as logged", "-", width=RAW_WIDTH, alpha=RAW_ALPHA)
    if _values(training, "validation_loss").notna().any():
        mark_entry(ax, "validation", "o", hollow=False)
    if _is_restart(training).any():
        mark_entry(ax, "restart", "|")
    ax.set(xlabel="step", ylabel="loss (nats per token)")
    if legend:
        # A loss falls; looking for the best place among a million points takes minutes.
        draw_legend(ax, place="upper right")
    return ax


@paper_look()
def losses(training: pd.DataFrame, *, runs: list[str] | None = None) -> Figure:
    """Figure of the losses of all runs; parameters and errors as for `loss`."""
    width, height = mpl.rcParams["figure.figsize"]
    figure, [[ax]] = new_figure(1, 1, size=(width, min(height, 2.4)))
    loss(training, runs=runs, ax=ax)
    return figure


def has_loss(training: pd.DataFrame) -> bool:
    """Whether any training loss was logged."""
    return bool(_values(training, "loss").notna().any())


def running_window(logged: pd.DataFrame) -> int:
    """Steps in the running mean: about a twenty-fifth of the longest run, 1, 2 or 5 times 10ᵏ."""
    longest = int(logged["step"].max() - logged["step"].min())
    round_numbers = [digit * int(10**k) for k in range(9) for digit in (1, 2, 5)]
    return max(n for n in round_numbers if n <= max(1, longest // MEAN_OVER))


def _values(training: pd.DataFrame, column: str) -> pd.Series[float]:
    if column not in training.columns:
        return pd.Series(float("nan"), index=training.index)
    return training[column].astype(float)


def _is_restart(training: pd.DataFrame) -> pd.Series[bool]:
    if "event" not in training.columns:
        return pd.Series(False, index=training.index)
    return training["event"].eq("restart")


def _draw_training(ax: Axes, logged: pd.DataFrame, style: SeriesStyle, window: int) -> None:
    by_step = logged.set_index("step")["loss"].astype(float).sort_index()
    ax.plot(by_step.index, by_step, color=style.color, linewidth=RAW_WIDTH, alpha=RAW_ALPHA)
    spacing = by_step.index.to_series().diff().median()
    # An odd number, or the mean would be of places half a spacing off.
    points = 2 * round(window / spacing / 2) + 1 if spacing > 0 else 1
    smooth = by_step.rolling(points, center=True, min_periods=1).mean()
    ax.plot(smooth.index, smooth.mask(by_step.isna()), color=style.color, linestyle=style.dashes)


def _draw_validation(ax: Axes, series: pd.DataFrame, style: SeriesStyle) -> None:
    values = _values(series, "validation_loss")
    there = values.notna()
    if there.any():
        steps = series.loc[there, "step"]
        ax.plot(steps, values[there], linestyle="", marker=style.marker, color=style.color)


def _draw_restarts(ax: Axes, series: pd.DataFrame, style: SeriesStyle) -> None:
    steps = series.loc[_is_restart(series), "step"]
    if len(steps):
        ax.plot(
            steps,
            [0.0] * len(steps),
            linestyle="",
            marker="|",
            markersize=7,
            color=style.color,
            transform=ax.get_xaxis_transform(),
        )
