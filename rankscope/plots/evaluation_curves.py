"""`score`, `performance` and `blimp_phenomena`: what models can do, against the training step."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.errors import RankscopeError
from rankscope.plots.grid import panel_figure, panel_grid, shared_legend
from rankscope.plots.interval_lines import draw_intervals
from rankscope.plots.metric_lines import scale_axis
from rankscope.plots.panel import drawn_on
from rankscope.plots.published_lines import draw_published_scores, fit_published
from rankscope.plots.style import paper_look
from rankscope.plots.time_axis import time_axis
from rankscope.statistics.interval_points import Interval
from rankscope.statistics.markup import literal
from rankscope.statistics.performance_measures import PHENOMENON, main_measures, phenomena
from rankscope.statistics.quantities import SCORE_QUANTITIES, quantity
from rankscope.statistics.replicates import by_group, group_names, runs_over
from rankscope.statistics.row_choice import series_names, step_label

CHANCE = 0.5
FEW_DOCUMENTS = 50
"""Documents below which intervals of texts are nominal: fewer than 95 % hold the truth."""
NOMINAL = f"nominal 95 % interval (under {FEW_DOCUMENTS} documents)"


OF_SENTENCES = ("accuracy", "ties")
"""Measures that are not means over documents."""


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
    number at the bottom.

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
    ['a', 'nominal 95 % interval (under 50 documents)']
    """
    wanted = {"task": task, "group": group, "metric": metric}
    rows = evaluation[np.logical_and.reduce([evaluation[c] == wanted[c] for c in wanted])]
    if rows.empty:
        raise RankscopeError(f"the evaluation holds no {metric!r} of {group!r} of {task!r}")
    drawn, names = quantity(metric, SCORE_QUANTITIES), series_names(evaluation, hue)
    is_few = metric not in OF_SENTENCES and bool((rows["n"] < FEW_DOCUMENTS).any())
    with drawn_on(ax, names if runs is None else runs, legend=legend) as panel:
        if published:
            draw_published_scores(panel, evaluation, wanted)
        draw_intervals(
            panel,
            rows,
            Interval("value", "ci_low", "ci_high"),
            hue=hue,
            over=runs_over(rows, hue),
            interval=NOMINAL if is_few else "95 % interval",
            log=drawn.log,
        )
        if metric == "accuracy":
            panel.baseline([CHANCE], "chance")
        time_axis(panel, evaluation, rows, hue=hue)
        scale_axis(panel.ax, drawn)
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
    draw = partial(score, evaluation, runs=runs, hue=hue, published=published, legend=False)
    for (task, group, metric), ax in zip(shown, panels, strict=True):
        draw(metric, task=task, group=group, ax=ax)
        ax.set(title=literal(task), xlabel="")
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

    Parameters as for `performance`.

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
    draw = partial(score, evaluation, runs=runs, hue=hue, published=published, legend=False)
    figure = panel_figure(
        {name: literal(name.removeprefix(PHENOMENON).replace("_", " ")) for name in groups},
        lambda name, ax: draw("accuracy", task="blimp", group=name, ax=ax),
    )
    return fit_published(figure, evaluation, published=published)
