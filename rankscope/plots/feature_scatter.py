"""`features_against_weights`: features after each block beside the weights in it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.plots.grid import panel_figure
from rankscope.plots.marks import draw_marks
from rankscope.plots.metric_lines import MOST_MARKERS, scale_axis
from rankscope.plots.panel import Panel
from rankscope.plots.style import SeriesStyle, paper_look, series_styles
from rankscope.statistics.feature_rows import beside_weights, layer_points, probe_text, rows_at
from rankscope.statistics.quantities import FEATURE_QUANTITIES, quantity
from rankscope.statistics.replicates import by_group, runs_over
from rankscope.statistics.row_choice import (
    by_run,
    chosen_rows,
    role_titles,
    series_names,
    span_text,
    step_label,
)


@paper_look()
def features_against_weights(
    metrics: pd.DataFrame,
    representations: pd.DataFrame,
    column: str = "per",
    *,
    of_weights: str = "per",
    component: str = "weight",
    at: str = "block",
    step: int | None = None,
    text: str | None = None,
    features: str | None = None,
    hue: str = "run",
    group: str | None = None,
) -> Figure:
    """Figure of features against weights at a step: a point for every layer, a panel a role.

    Each point is the number of the features after block l over the metric of the weights in block
    l, with the 95 % interval over documents as a bar. A thin line joins the layers of a run in
    order, from a hollow marker at the first; of many layers every few have a marker. Layers of one
    run are not independent, and both ranks may change with depth for reasons of their own: the
    figure cannot show that one follows from the other.

    Parameters
    ----------
    metrics, representations
        `Results.metrics` and `Results.representations`.
    column, of_weights
        A number of the features, and a metric of the weights.
    component
        Which matrices.
    at, text, features
        As in `rankscope.plots.feature`.
    step
        The step; by default the last one that all runs have. Where they share none, or the first
        alone, each run is drawn at its own last one, and the label says at which.
    hue, group
        The column that colours stand for, or a pattern that groups runs into replicates, whose
        means are drawn, without bars.

    Raises
    ------
    RankscopeError
        If no run has both at one step.

    Examples
    --------
    >>> import pandas as pd
    >>> import rankscope as rs
    >>> metrics = rs.open_results("results").metrics
    >>> rows = pd.DataFrame({"layer": [0, 1], "per": [0.5, 0.4]}).assign(
    ...     run="full", step=100, text="novels", features="all", at="block", tokens=4096,
    ...     per_low=0.3, per_high=0.6
    ... )
    >>> figure = rs.plots.features_against_weights(metrics, rows)
    >>> figure.get_supylabel()
    'PER of features = RankMe / min(n, d)'
    """
    metrics, hue = by_group(metrics, group, hue)
    rows = rows_at(representations, at=at, text=text, features=features)
    points = beside_weights(metrics, rows, column, of_weights, component=component, step=step)
    points = points.assign(**{hue: points["run"].map(by_run(metrics, hue))})
    drawn, weights = quantity(column, FEATURE_QUANTITIES), quantity(of_weights)
    where = f"{weights.label} of the block's weights, at {_steps(points, step_label(metrics))}"

    def draw(role: str, ax: Axes) -> None:
        panel = Panel(ax, series_styles(series_names(metrics, hue)))
        own = points[points["role"] == role]
        for name, series in own.groupby(hue, sort=True):
            _draw(ax, layer_points(series), panel.series(name, dashes=""))
        _explain(panel, own, hue, note=probe_text(rows[rows["step"].isin(points["step"])]))
        scale_axis(ax, drawn)
        ax.set_xlabel(where)
        if weights.log:
            ax.set_xscale("log")

    rows_drawn = chosen_rows(metrics, component=component)
    titles = role_titles(rows_drawn[rows_drawn["role"].isin(points["role"])])
    return panel_figure(titles, draw)


def _steps(points: pd.DataFrame, unit: str) -> str:
    """At which step, or range of last steps, the points are."""
    steps = span_text(points["step"])
    is_one = points["step"].nunique() == 1
    return f"{unit} {steps}" if is_one else f"the last {unit} of each run ({steps})"


def _draw(ax: Axes, points: pd.DataFrame, style: SeriesStyle) -> None:
    x, y = points["weights"], points["features"]
    ax.plot(x, y, color=style.color, linewidth=0.6, zorder=1)
    ax.vlines(x, points["low"], points["high"], color=style.color, linewidth=0.8)
    marked = points.iloc[:: math.ceil(len(points) / MOST_MARKERS)]
    is_first = np.arange(len(marked)) == 0
    draw_marks(ax, marked["weights"], marked["features"], style, hollow=is_first)


def _explain(panel: Panel, points: pd.DataFrame, hue: str, *, note: str) -> None:
    over = runs_over(points, hue)
    if over:
        panel.note(f"means over {over}")
    panel.mark("first layer; the line continues to the last")
    if not over and points["low"].notna().any():
        panel.note("bars: 95 % interval over documents")
    panel.note(note)
