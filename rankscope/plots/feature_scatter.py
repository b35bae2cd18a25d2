"""`features_against_weights`: features after each block beside the weights in it."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.errors import WrongSettingError
from rankscope.plots.feature_lines import probe_text
from rankscope.plots.grid import finish_grid, panel_grid, panel_title
from rankscope.plots.panel import Panel, label_log_axis
from rankscope.plots.style import SeriesStyle, paper_look, plain, series_styles
from rankscope.plots.time_axis import step_label
from rankscope.statistics.feature_rows import beside_weights, rows_at
from rankscope.statistics.quantities import FEATURE_QUANTITIES, Quantity, quantity
from rankscope.statistics.replicates import are_replicates, by_group, runs_over
from rankscope.statistics.row_choice import by_run, chosen_rows, in_order, role_title, series_names


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
    order, from a hollow marker at the first. Layers of one run are not independent, and both ranks
    may change with depth for reasons of their own: the figure cannot show that one follows from
    the other.

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
    drawn, weights = FEATURE_QUANTITIES.get(column) or Quantity(plain(column)), quantity(of_weights)
    roles = in_order(points["role"])
    figure, panels, hole = panel_grid(len(roles))
    where = f"{weights.label} of the block's weights, at {_steps(points, step_label(metrics))}"
    for role, ax in zip(roles, panels, strict=True):
        panel = Panel(ax, series_styles(series_names(metrics, hue)))
        own = points[points["role"] == role]
        for name, series in own.groupby(hue, sort=True):
            _draw(ax, _means(series), panel.series(name, dashes=""))
        _explain(panel, own, hue, note=probe_text(rows[rows["step"].isin(points["step"])]))
        of_role = chosen_rows(metrics, component=component, role=role)
        panel_title(ax, role_title(role, of_role))
        ax.set(xlabel=where, ylabel=drawn.label)
        if weights.log:
            ax.set_xscale("log")
        if drawn.log:
            ax.set_yscale("log")
            label_log_axis(ax)
    return finish_grid(figure, panels, hole=hole)


def has_features_of_weights(metrics: pd.DataFrame, representations: pd.DataFrame) -> bool:
    """Whether some run has weights and features of blocks at a step."""
    try:
        rows = rows_at(representations)
        return len(beside_weights(metrics, rows, "per", "per")) > 0
    except WrongSettingError:
        return False


def _steps(points: pd.DataFrame, unit: str) -> str:
    """At which step, or range of last steps, the points are."""
    first, last = int(points["step"].min()), int(points["step"].max())
    return f"{unit} {first}" if first == last else f"the last {unit} of each run ({first}–{last})"


def _means(series: pd.DataFrame) -> pd.DataFrame:
    """One point per layer; the ends of the interval only of a single run."""
    means = series.groupby("layer")[["weights", "features", "low", "high"]].mean()
    return means if series["run"].nunique() == 1 else means.assign(low=float("nan"))


def _draw(ax: Axes, points: pd.DataFrame, style: SeriesStyle) -> None:
    x, y = points["weights"], points["features"]
    ax.plot(x, y, color=style.color, linewidth=0.6, zorder=1)
    ax.vlines(x, points["low"], points["high"], color=style.color, linewidth=0.8)
    for some, face in ((points.iloc[1:], style.color), (points.iloc[:1], "white")):
        ax.plot(
            some["weights"],
            some["features"],
            linestyle="",
            marker=style.marker,
            color=style.color,
            markerfacecolor=face,
        )


def _explain(panel: Panel, points: pd.DataFrame, hue: str, *, note: str) -> None:
    if are_replicates(points, hue):
        panel.note(f"means over {runs_over(points, hue)}")
    panel.mark("first layer; the line goes on to the last")
    if not are_replicates(points, hue) and points["low"].notna().any():
        panel.note("bars: 95 % interval over documents")
    panel.note(note)
