"""`score`, `performance` and `blimp_phenomena`: what models can do, against the training step."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.errors import RankscopeError
from rankscope.plots.grid import finish_grid, panel_grid, step_label
from rankscope.plots.legends import band_entry, draw_legend, line_entry, mark_entry, shared_legend
from rankscope.plots.metric_lines import draw_series, label_log_axis
from rankscope.plots.style import paper_look, plain, series_styles

PHENOMENON = "phenomenon:"
CHANCE = 0.5


@dataclass(frozen=True)
class _Look:
    """How a measure is drawn.

    Attributes
    ----------
    label
        Axis label, with the unit.
    log
        Whether the axis is logarithmic.
    """

    label: str
    log: bool = False


_LOOKS = {
    "perplexity": _Look("perplexity per token", log=True),
    "byte_perplexity": _Look("perplexity per byte", log=True),
    "word_perplexity": _Look("perplexity per word", log=True),
    "mean_document_perplexity": _Look("mean perplexity of documents", log=True),
    "macro_perplexity": _Look("mean perplexity of sources", log=True),
    "loss": _Look("loss (nats per token)"),
    "bits_per_byte": _Look("bits per byte"),
    "accuracy": _Look("accuracy"),
    "ties": _Look("ties"),
}
_MAIN = ("perplexity", "loss", "accuracy")


def score(
    evaluation: pd.DataFrame,
    metric: str,
    *,
    task: str,
    group: str = "all",
    runs: list[str] | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw a measure of performance against the step: one line a run, with its interval as a band.

    The interval is about other texts or sentences of the kind, not about other trainings. The
    axis is logarithmic for perplexities, on which equal distances are equal losses. A dotted line
    is the accuracy of guessing. Values that are infinite stand at the head of the axes, those
    that are not a number at their foot, hollow.

    Parameters
    ----------
    evaluation
        The evaluation table.
    metric
        ``perplexity``, ``loss``, ``accuracy``, …
    task, group
        Of what: a task, and ``all`` of it or a part, such as ``phenomenon:binding``.
    runs
        All the runs of the study, to give a run the colour that it has in other figures; those
        in ``evaluation`` if not given.
    legend
        Whether to draw a legend; its entries are there either way.
    ax
        Where to draw; the current axes if not given.

    Raises
    ------
    RankscopeError
        If nothing of the kind was measured.
    """
    wanted = {"task": task, "group": group, "metric": metric}
    rows = evaluation[np.logical_and.reduce([evaluation[c] == wanted[c] for c in wanted])]
    if rows.empty:
        raise RankscopeError(f"the evaluation holds no {metric!r} of {group!r} of {task!r}")
    look = _LOOKS.get(metric, _Look(metric))
    styles = series_styles(evaluation["run"] if runs is None else runs)
    ax = plt.gca() if ax is None else ax
    if look.log:
        ax.set_yscale("log", nonpositive="mask")
    points = _points(rows)
    for run, series in points.groupby("run", sort=True):
        draw_series(ax, run, series, style=styles[run])
    _explain(ax, points, has_chance=metric == "accuracy")
    ax.set(xlabel=step_label(evaluation), ylabel=look.label)
    if look.log:
        label_log_axis(ax)
    if legend:
        draw_legend(ax)
    return ax


@paper_look()
def performance(evaluation: pd.DataFrame, *, runs: list[str] | None = None) -> Figure:
    """Figure of the main measure of every task, a panel each: perplexity, or accuracy.

    Lines and bands as in `score`. A task without a perplexity shows its loss.

    Parameters
    ----------
    evaluation
        The evaluation table.
    runs
        As for `score`.

    Raises
    ------
    RankscopeError
        If no perplexity, loss or accuracy of a whole task was measured.
    """
    shown = main_measures(evaluation)
    if not shown:
        raise RankscopeError("the evaluation holds no perplexity, loss or accuracy of a whole task")
    figure, panels, _ = panel_grid(len(shown), share_y=False, panel_width=2.0)
    for (task, group, metric), ax in zip(shown, panels, strict=True):
        score(evaluation, metric, task=task, group=group, runs=runs, legend=False, ax=ax)
        ax.set(title=plain(task), xlabel="")
    figure.supxlabel(step_label(evaluation))
    shared_legend(figure, panels, hole=None)
    return figure


@paper_look()
def blimp_phenomena(evaluation: pd.DataFrame, *, runs: list[str] | None = None) -> Figure:
    """Figure of the accuracies in BLiMP's phenomena, a panel each; drawn as in `score`.

    Parameters
    ----------
    evaluation
        The evaluation table.
    runs
        As for `score`.

    Raises
    ------
    RankscopeError
        If there are no accuracies by phenomenon.
    """
    groups = phenomena(evaluation)
    if not groups:
        raise RankscopeError("the evaluation holds no accuracies of BLiMP by phenomenon")
    figure, panels, hole = panel_grid(len(groups))
    for group, ax in zip(groups, panels, strict=True):
        score(evaluation, "accuracy", task="blimp", group=group, runs=runs, legend=False, ax=ax)
        ax.set_title(plain(group.removeprefix(PHENOMENON).replace("_", " ")))
    return finish_grid(figure, panels, hole=hole)


def main_measures(evaluation: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Task, group and metric of the one measure that stands for each task, texts first."""
    whole = evaluation[evaluation["group"] == "all"]
    found = [
        (str(task), "all", next(name for name in _MAIN if name in there))
        for task, there in whole.groupby("task")["metric"].agg(set).items()
        if there & {*_MAIN}
    ]
    return sorted(found, key=lambda measure: (_MAIN.index(measure[2]), measure[0]))


def phenomena(evaluation: pd.DataFrame) -> list[str]:
    """Groups of BLiMP that are phenomena, by name."""
    is_one = evaluation["group"].str.startswith(PHENOMENON) & (evaluation["task"] == "blimp")
    return sorted(set(evaluation.loc[is_one & (evaluation["metric"] == "accuracy"), "group"]))


def _points(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the evaluation table as points of a `rankscope.statistics.step_summary.summary`."""
    names = {"value": "centre", "ci_low": "low", "ci_high": "high"}
    points = rows.sort_values(["run", "step"]).rename(columns=names)
    points = points[["run", "step", *names.values()]].astype({"step": "int64"})
    return points.assign(undefined=points["centre"].isna().astype(int), noisy=False, bound=False)


def _explain(ax: Axes, points: pd.DataFrame, *, has_chance: bool) -> None:
    if (points["low"] < points["high"]).any():
        band_entry(ax, "95 % interval")
    if has_chance:
        ax.axhline(CHANCE, color="0.35", linestyle=":", linewidth=0.9, zorder=1)
        line_entry(ax, "chance", ":")
    if points["centre"].isna().any():
        mark_entry(ax, "at the foot: not a number", "o")
    if np.isinf(points["centre"]).any():
        mark_entry(ax, "at the head: infinite", "o")
