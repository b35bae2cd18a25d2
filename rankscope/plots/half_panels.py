"""`layer_halves` and `by_half`: a metric of the first half of the layers against the second."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.typing import LineStyleType

from rankscope.plots.grid import panel_figure
from rankscope.plots.metric_lines import draw_points, explain, scale_axis
from rankscope.plots.panel import drawn_on
from rankscope.plots.style import DASHED, paper_look
from rankscope.plots.time_axis import time_axis
from rankscope.statistics.layer_halves import HALF, HALVES, in_halves, layers_text
from rankscope.statistics.markup import literal
from rankscope.statistics.quantities import quantity, usual_error
from rankscope.statistics.replicates import by_group
from rankscope.statistics.row_choice import (
    chosen_rows,
    require_metric,
    series_names,
    titles_with_rank,
)
from rankscope.statistics.step_summary import cuts_of, summarised_over, summary

DASHES: dict[str, LineStyleType] = {"first": "-", "second": DASHED}


def layer_halves(
    table: pd.DataFrame,
    column: str = "per",
    *,
    component: str = "weight",
    role: str | None = None,
    hue: str = "run",
    group: str | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw a metric of the first and of the second half of the layers: two lines per run.

    The full line is the first half, the dashed one the second; the legend says which layers they
    are. Everything else is as in `metric`, each line over the layers of its half. Where a run has
    an odd number of layers, the middle one is in neither half.

    Parameters
    ----------
    table
        The metrics table. Colours are decided from all of it.
    column, component, role
        The metric and the matrices, as in `metric`.
    hue, group
        The column that identifies the colours, or a pattern that groups runs into replicates.
    legend, ax
        As in `metric`.

    Raises
    ------
    RankscopeError
        If there are no such rows or no such metric, or no run has two layers.

    Examples
    --------
    >>> import rankscope as rs
    >>> ax = rs.plots.layer_halves(rs.open_results("results").metrics, role="q")
    >>> [text.get_text() for text in ax.get_legend().get_texts()][:4]
    ['full', 'relora', 'first half: layer 0', 'second half: layer 1']
    """
    table, hue = by_group(table, group, hue)
    rows = in_halves(chosen_rows(table, component=component, role=role))
    require_metric(rows, column)
    cuts = cuts_of(table)
    halves = {half: rows[rows[HALF] == half] for half in HALVES}
    drawn = {half: summary(own, column, hue=hue, cuts=cuts) for half, own in halves.items()}
    with drawn_on(ax, series_names(table, hue), legend=legend) as panel:
        for name in sorted(rows[hue].dropna().unique(), key=str):
            style = panel.series(name, dashes="")
            for half, points in drawn.items():
                own = points[points[hue] == name]
                draw_points(panel.ax, own, replace(style, dashes=DASHES[half]))
        for half, dashes in DASHES.items():
            panel.line(literal(layers_text(rows, half, hue=hue), limit=120), dashes)
        over = summarised_over(rows.drop(columns=HALF), hue=hue)
        explain(panel, pd.concat(drawn.values()), column, over=over)
        time_axis(panel, table, rows, hue=hue)
        scale_axis(panel.ax, quantity(column), error=usual_error(rows, column))
    return panel.ax


@paper_look()
def by_half(
    table: pd.DataFrame,
    column: str = "per",
    *,
    component: str = "weight",
    hue: str = "run",
    group: str | None = None,
) -> Figure:
    """Figure of `layer_halves` with a panel for every role; parameters and errors as there.

    Examples
    --------
    >>> import rankscope as rs
    >>> figure = rs.plots.by_half(rs.open_results("results").metrics, "stable_rank")
    >>> figure.get_supylabel()
    'stable rank'
    """
    table, hue = by_group(table, group, hue)
    rows = in_halves(chosen_rows(table, component=component))
    draw = partial(layer_halves, table, column, component=component, hue=hue, legend=False)
    titles = titles_with_rank(rows, column)
    return panel_figure(titles, lambda role, ax: draw(role=role, ax=ax))
