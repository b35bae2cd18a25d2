"""`score`, `performance` and `blimp_phenomena`: what models can do, against the training step."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.errors import RankscopeError
from rankscope.plots.grid import finish_grid, panel_grid, shared_legend
from rankscope.plots.interval_points import Interval, interval_points
from rankscope.plots.metric_lines import draw_series
from rankscope.plots.panel import GREY, Panel, drawn_on, label_log_axis
from rankscope.plots.published_lines import draw_published_scores, fit_published
from rankscope.plots.style import paper_look, plain
from rankscope.plots.time_axis import step_label, time_axis
from rankscope.statistics.replicates import (
    Over,
    are_replicates,
    by_group,
    group_names,
    runs_over,
)
from rankscope.statistics.row_choice import series_names

PHENOMENON = "phenomenon:"
CHANCE = 0.5
INTERVAL = Interval("value", "ci_low", "ci_high")
FEW_DOCUMENTS = 50
"""Documents below which intervals of texts are nominal: fewer than 95 % hold the truth."""


@dataclass(frozen=True)
class _Look:
    """How a measure is drawn.

    Attributes
    ----------
    label
        Axis label, with the unit.
    log
        Whether the axis is logarithmic.
    of_texts
        Whether it is a mean over documents.
    """

    label: str
    log: bool = False
    of_texts: bool = True


_LOOKS = {
    "perplexity": _Look("perplexity per token", log=True),
    "byte_perplexity": _Look("perplexity per byte", log=True),
    "word_perplexity": _Look("perplexity per word", log=True),
    "mean_document_perplexity": _Look("mean perplexity of documents", log=True),
    "macro_perplexity": _Look("mean perplexity of sources", log=True),
    "loss": _Look("loss (nats per token)"),
    "bits_per_byte": _Look("bits per byte"),
    "accuracy": _Look("accuracy", of_texts=False),
    "ties": _Look("ties", of_texts=False),
}
_MAIN = ("perplexity", "loss", "accuracy")


def measure_label(metric: str) -> str:
    """Axis label of a measure, with its unit."""
    return _LOOKS.get(metric, _Look(metric)).label


def score(
    evaluation: pd.DataFrame,
    metric: str,
    *,
    task: str,
    group: str = "all",
    runs: Collection[object] | None = None,
    hue: str = "run",
    published: bool = False,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw a measure of performance against the step: one line per run, with its 95 % interval.

    The interval is about other texts or sentences of the same kind, not about other trainings;
    below 50 documents it is nominal, and the legend says so. A line of several runs is their mean
    (geometric for perplexities: the mean of their losses) at the steps that all of them have, and
    its band spans the least to the greatest; a single run then has none. The axis is logarithmic
    for perplexities, so equal distances are equal losses. A dotted line is the accuracy of
    guessing. Infinite values have hollow markers at the top of the axes, those that are not a
    number at the foot.

    Parameters
    ----------
    evaluation
        The evaluation table.
    metric
        ``perplexity``, ``loss``, ``accuracy``, …
    task, group
        A task, and ``all`` of it or a part, such as ``phenomenon:binding``.
    runs
        All the runs of the study, or values of ``hue``, to give each the colour that it has in
        other figures; those in ``evaluation`` if not given.
    hue
        The column that identifies the lines: ``run``, one of your own, or ``run_group``, which
        `rankscope.grouped` adds; ``group`` is taken.
    published
        Also draw the curves of `rankscope.published.weiss2025`, in grey: accuracies of the task
        ``blimp``, and perplexities of a task whose name contains ``paloma``, which are comparable
        only for the study's tokenizer and texts.
    legend, ax
        As in `rankscope.plots.metric`.

    Raises
    ------
    RankscopeError
        If nothing of the kind was measured.

    Examples
    --------
    >>> import pandas as pd
    >>> import rankscope as rs
    >>> evaluation = pd.DataFrame({"run": "a", "step": [0, 100], "value": [4.1, 2.9]}).assign(
    ...     task="novels", group="all", metric="loss", ci_low=[4.0, 2.8], ci_high=[4.2, 3.0], n=20
    ... )
    >>> ax = rs.plots.score(evaluation, "loss", task="novels")
    >>> [text.get_text() for text in ax.get_legend().get_texts()]
    ['a', 'nominal 95 % interval: under 50 documents']
    """
    wanted = {"task": task, "group": group, "metric": metric}
    rows = evaluation[np.logical_and.reduce([evaluation[c] == wanted[c] for c in wanted])]
    if rows.empty:
        raise RankscopeError(f"the evaluation holds no {metric!r} of {group!r} of {task!r}")
    look = _LOOKS.get(metric, _Look(metric))
    is_of_runs = are_replicates(evaluation, hue)
    points = interval_points(rows, INTERVAL, hue=hue, log=look.log)
    with drawn_on(
        ax, series_names(evaluation, hue) if runs is None else runs, legend=legend
    ) as panel:
        if look.log:
            panel.ax.set_yscale("log", nonpositive="mask")
        for name, series in points.groupby(hue, sort=True):
            draw_series(panel, name, series)
        if published:
            draw_published_scores(panel, evaluation, wanted)
        over = runs_over(rows, hue) if is_of_runs else Over()
        is_few = look.of_texts and bool((rows["n"] < FEW_DOCUMENTS).any())
        _explain(panel, points, look, over=over, is_few=is_few)
        if metric == "accuracy":
            panel.ax.axhline(CHANCE, color=GREY, linestyle=":", linewidth=0.9, zorder=1)
            panel.line("chance", ":", width=0.9)
        time_axis(panel, evaluation, rows, hue=hue)
        panel.ax.set_ylabel(look.label)
        if look.log:
            label_log_axis(panel.ax)
    return panel.ax


@paper_look()
def performance(
    evaluation: pd.DataFrame,
    *,
    runs: Collection[object] | None = None,
    hue: str = "run",
    group: str | None = None,
    published: bool = False,
) -> Figure:
    """Figure of the main measure of every task, a panel each: perplexity, or accuracy.

    Lines and bands as in `score`. A task without a perplexity shows its loss.

    Parameters
    ----------
    evaluation
        The evaluation table.
    runs, hue, published
        As for `score`.
    group
        A pattern that groups runs into replicates, in place of ``hue``: see `rankscope.grouped`.

    Raises
    ------
    RankscopeError
        If no perplexity, loss or accuracy of a whole task was measured.

    Examples
    --------
    >>> import pandas as pd
    >>> import rankscope as rs
    >>> evaluation = pd.DataFrame({"run": "a", "step": [0, 100], "value": [0.5, 0.7]}).assign(
    ...     task="blimp", group="all", metric="accuracy", ci_low=0.4, ci_high=0.8, n=90
    ... )
    >>> figure = rs.plots.performance(evaluation)
    >>> [ax.get_title() for ax in figure.axes]
    ['blimp']
    """
    runs = group_names(runs, group)
    evaluation, hue = by_group(evaluation, group, hue)
    shown = main_measures(evaluation)
    if not shown:
        raise RankscopeError("the evaluation holds no perplexity, loss or accuracy of a whole task")
    figure, panels, _ = panel_grid(len(shown), share_y=False, panel_width=2.0)
    for (task, group, metric), ax in zip(shown, panels, strict=True):
        score(
            evaluation,
            metric,
            task=task,
            group=group,
            runs=runs,
            hue=hue,
            published=published,
            legend=False,
            ax=ax,
        )
        ax.set(title=plain(task), xlabel="")
    figure.supxlabel(step_label(evaluation))
    shared_legend(figure, panels, hole=None)
    return fit_published(figure, evaluation, published=published)


@paper_look()
def blimp_phenomena(
    evaluation: pd.DataFrame,
    *,
    runs: Collection[object] | None = None,
    hue: str = "run",
    group: str | None = None,
    published: bool = False,
) -> Figure:
    """Figure of the accuracies in BLiMP's phenomena, a panel each; drawn as in `score`.

    Parameters
    ----------
    evaluation
        The evaluation table.
    runs, hue, published
        As for `score`.
    group
        A pattern that groups runs into replicates, in place of ``hue``: see `rankscope.grouped`.

    Raises
    ------
    RankscopeError
        If there are no accuracies by phenomenon.

    Examples
    --------
    >>> import pandas as pd
    >>> import rankscope as rs
    >>> evaluation = pd.DataFrame({"run": "a", "step": [0, 100], "value": [0.5, 0.7]}).assign(
    ...     task="blimp", group="phenomenon:binding", metric="accuracy", ci_low=0, ci_high=1, n=9
    ... )
    >>> figure = rs.plots.blimp_phenomena(evaluation)
    >>> [ax.get_title() for ax in figure.axes]
    ['binding']
    """
    runs = group_names(runs, group)
    evaluation, hue = by_group(evaluation, group, hue)
    groups = phenomena(evaluation)
    if not groups:
        raise RankscopeError("the evaluation holds no accuracies of BLiMP by phenomenon")
    figure, panels, hole = panel_grid(len(groups))
    names = series_names(evaluation, hue) if runs is None else runs
    for group, ax in zip(groups, panels, strict=True):
        score(
            evaluation,
            "accuracy",
            task="blimp",
            group=group,
            runs=names,
            hue=hue,
            published=published,
            legend=False,
            ax=ax,
        )
        ax.set_title(plain(group.removeprefix(PHENOMENON).replace("_", " ")))
    return fit_published(finish_grid(figure, panels, hole=hole), evaluation, published=published)


def main_measures(evaluation: pd.DataFrame) -> list[tuple[str, str, str]]:
    """Task, group and metric of the main measure of each task, texts first."""
    whole = evaluation[evaluation["group"] == "all"]
    measures = [
        (str(task), "all", next(name for name in _MAIN if name in there))
        for task, there in whole.groupby("task")["metric"].agg(set).items()
        if there & {*_MAIN}
    ]
    return sorted(measures, key=lambda measure: (_MAIN.index(measure[2]), measure[0]))


def phenomena(evaluation: pd.DataFrame) -> list[str]:
    """Groups of BLiMP that are phenomena, by name."""
    is_one = evaluation["group"].str.startswith(PHENOMENON) & (evaluation["task"] == "blimp")
    return sorted(set(evaluation.loc[is_one & (evaluation["metric"] == "accuracy"), "group"]))


def _explain(panel: Panel, points: pd.DataFrame, look: _Look, *, over: Over, is_few: bool) -> None:
    if over:
        panel.line(f"{'geometric mean' if look.log else 'mean'} over {over}")
    if (points["low"] < points["high"]).any():
        interval = f"nominal 95 % interval: under {FEW_DOCUMENTS} documents"
        panel.band(f"min to max over {over}" if over else interval if is_few else "95 % interval")
    panel.left_out(over)
    if ((points["undefined"] > 0) & points["centre"].notna()).any():
        panel.mark("undefined for some")
    if points["centre"].isna().any():
        panel.mark("at the foot: not a number")
    if np.isinf(points["centre"]).any():
        panel.mark("at the head: infinite")
