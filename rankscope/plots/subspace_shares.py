"""`subspaces`: which subspaces the adapters were given, by what the training logged."""

from __future__ import annotations

from dataclasses import replace

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes

from rankscope.errors import RankscopeError
from rankscope.plots.legends import draw_legend, mark_entry, series_entry
from rankscope.plots.style import SeriesStyle, series_styles
from rankscope.statistics.row_choice import distinct

MEAN = "mean over adapters"
THIN = 0.7
DASHED = (0, (4, 1.5))


def subspaces(
    training: pd.DataFrame,
    *,
    runs: list[str] | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw which subspaces the adapters were given at every restart: two lines a run.

    The full line is the share of the gradient's energy that lies in the rows of the new A, the
    dashed one, with hollow markers, the overlap of these rows with those of the cycle before.
    Both are in [0, 1], and means over all adapters of a model.

    Parameters
    ----------
    training
        The training log, with columns ``run``, ``step``, ``captured_energy`` and ``overlap``.
    runs
        All the runs of the study, to keep their colours; those in ``training`` if not given.
    legend
        Whether to draw a legend; its entries are there either way.
    ax
        Where to draw; the current axes if not given.

    Raises
    ------
    RankscopeError
        If no captured energy was logged.
    """
    if not has_subspaces(training):
        raise RankscopeError("the training table has no value of 'captured_energy'")
    styles = series_styles(training["run"] if runs is None else runs)
    ax = plt.gca() if ax is None else ax
    for run in sorted(distinct(training, "run"), key=str):
        restarts, style = begun_cycles(training, run), replace(styles[run], dashes="-")
        if restarts.empty:
            continue
        series_entry(ax, run, style)
        _draw_shares(ax, restarts, "captured_energy", style, hollow=False)
        _draw_shares(ax, restarts, "overlap", style, hollow=True)
    mark_entry(ax, "gradient energy in new A", "o", hollow=False)
    mark_entry(ax, "overlap of new and old A", "o")
    ax.set(xlabel="step", ylabel=MEAN, ylim=(0, 1.03))
    if legend:
        draw_legend(ax)
    return ax


def has_subspaces(training: pd.DataFrame) -> bool:
    """Whether any captured energy was logged."""
    return "captured_energy" in training.columns and bool(training["captured_energy"].notna().any())


def begun_cycles(training: pd.DataFrame | None, run: object) -> pd.DataFrame:
    """Lines of the log at which adapters of a run begin, with ``overlap`` even if none has one."""
    if training is None or not has_subspaces(training):
        return pd.DataFrame(columns=["step", "captured_energy", "overlap"], dtype=float)
    lines = training[(training["run"] == run) & training["captured_energy"].notna()]
    return lines.reindex(columns=["step", "captured_energy", "overlap"]).sort_values("step")


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
