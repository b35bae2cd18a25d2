"""`rank_against_performance`: every run as one point, its rank beside what it can do."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.errors import RankscopeError
from rankscope.plots.grid import panel_figure
from rankscope.plots.marks import draw_marks
from rankscope.plots.metric_lines import scale_axis
from rankscope.plots.panel import Panel
from rankscope.plots.style import paper_look, series_styles
from rankscope.statistics.associations import FEWEST_PAIRS
from rankscope.statistics.correlation import Measure
from rankscope.statistics.markup import literal
from rankscope.statistics.performance_measures import of_one_measure
from rankscope.statistics.quantities import SCORE_QUANTITIES, quantity
from rankscope.statistics.replicates import are_replicates, by_group
from rankscope.statistics.row_choice import by_run, chosen_rows, role_titles, series_names
from rankscope.statistics.run_correlation import run_points

OF_RUN, OF_MEAN = 2.2, 6.0
"""Sizes of markers."""


@paper_look()
def rank_against_performance(
    metrics: pd.DataFrame,
    evaluation: pd.DataFrame,
    column: str = "per",
    *,
    component: str = "weight",
    measure: Measure | None = None,
    step: int | None = None,
    hue: str = "run",
    group: str | None = None,
) -> Figure:
    """Figure of rank and performance at one step, a point for every run, a panel for every role.

    With groups, such as seeds of one method, small points are runs, with a thin line to the hollow
    marker at the mean of their group: a trend of the hollow markers is between groups, one of the
    small points around them within. `rankscope.correlate_runs` has the numbers.

    Parameters
    ----------
    metrics, evaluation
        The tables of an analysis and of an evaluation.
    column, component
        Which rank, summarised over the matrices of a role as in `metric`.
    measure
        Task, group and metric; by default the first loss, else accuracy, of a whole task.
    step
        The step; by default the last one that all runs have.
    hue, group
        The column that colours stand for, or a pattern that groups runs into replicates.

    Raises
    ------
    RankscopeError
        If fewer than four runs have both; and as `rankscope.correlate_runs`.

    Examples
    --------
    >>> import pandas as pd
    >>> import rankscope as rs
    >>> rows = rs.open_results("results").metrics.query("run == 'full' and step == 100")
    >>> seeds = [f"{method}-{seed}" for method in "ab" for seed in range(4)]
    >>> metrics = pd.concat(rows.assign(run=run) for run in seeds)
    >>> evaluation = pd.DataFrame({"run": seeds, "value": range(8)}).assign(
    ...     step=100, task="novels", group="all", metric="loss"
    ... )
    >>> figure = rs.plots.rank_against_performance(metrics, evaluation, group="(.*)-")
    >>> figure.get_supxlabel()
    'novels: loss (nats per token) at step 100'
    """
    metrics, hue = by_group(metrics, group, hue)
    measures = None if measure is None else [measure]
    points = run_points(
        metrics,
        evaluation,
        columns=[column],
        component=component,
        measures=measures,
        step=step,
    )
    points = of_one_measure(points)
    count = points["run"].nunique()
    if count < FEWEST_PAIRS:
        raise RankscopeError(
            f"{count} runs have both rank and performance at one step: it takes {FEWEST_PAIRS} for "
            "a relation to be seen"
        )
    points = points.assign(**{hue: points["run"].map(by_run(metrics, hue))})
    drawn, has_groups = quantity(column), are_replicates(points, hue)
    one = points.iloc[0]
    what = quantity(str(one["metric"]), SCORE_QUANTITIES).label
    where = f"{literal(one['task'])}: {what} at step {int(one['step'])}"

    def draw(role: str, ax: Axes) -> None:
        panel = Panel(ax, series_styles(series_names(metrics, hue)))
        _draw(panel, points[points["role"] == role], hue, has_groups=has_groups)
        scale_axis(ax, drawn)
        ax.set_xlabel(where)

    rows = chosen_rows(metrics, component=component)
    titles = role_titles(rows[rows["role"].isin(points["role"])])
    return panel_figure(titles, draw, share_y=not drawn.log)


def _draw(panel: Panel, points: pd.DataFrame, hue: str, *, has_groups: bool) -> None:
    log = quantity(str(points["column"].iloc[0])).log
    for name, series in points.groupby(hue, sort=True):
        style = panel.series(name, dashes="")
        x, y = (series[name].to_numpy(np.float64) for name in ("performance", "rank"))
        if has_groups and len(x) > 1:
            centre = x.mean(), np.exp(np.log(y).mean()) if log else y.mean()
            for one in zip(x, y, strict=True):
                ends = np.transpose([centre, one])
                panel.ax.plot(*ends, color=style.color, linewidth=0.6, zorder=1)
            draw_marks(panel.ax, *centre, style, hollow=True, size=OF_MEAN)
        draw_marks(panel.ax, x, y, style, size=OF_RUN)
    if has_groups:
        panel.mark("mean of a group, with its runs around it")
