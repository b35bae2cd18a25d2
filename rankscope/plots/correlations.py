"""`correlation` and `rank_and_performance`: which ranks move with what the model can do."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.plots.grid import new_figure, row_title, shared_legend
from rankscope.plots.label_texts import name_title
from rankscope.plots.panel import GREY, drawn_on
from rankscope.plots.style import SeriesStyle, figure_width, paper_look
from rankscope.statistics.co_movement import Method
from rankscope.statistics.correlation import means_over_runs
from rankscope.statistics.performance_measures import measures_to_draw
from rankscope.statistics.quantities import quantity
from rankscope.statistics.replicates import by_group, runs_over
from rankscope.statistics.row_choice import distinct, in_order, series_names

SPREAD = 0.72
"""Share of a role's height that its dots take up."""
PALE = 0.45
INSIDE = 0.85  # of the width, which the panels share; names of roles and metrics take the rest
NOTES = {
    "levels": "levels (two trends correlate whatever the cause)",
    "differences": "later differences between checkpoints, without their trend",
}


def correlation(
    correlations: pd.DataFrame,
    *,
    column: str,
    measure: tuple[str, str, str],
    method: Method = "spearman",
    hue: str = "run",
    group: str | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw the correlations of every role's rank with one measure, runs under one another.

    Filled markers are correlations of differences between successive checkpoints, less their own
    trend, with their 95 % intervals over steps of one training, where there are any. Hollow, pale
    markers above them are correlations of levels, which are near ±1 for any two curves with a
    trend. `rankscope.correlate` explains the limits of both. An undefined correlation has no
    marker. For several runs, the markers are at the mean of the defined correlations and the lines
    span the least to the greatest; a single run then has no line.

    Parameters
    ----------
    correlations
        What `rankscope.correlate` returned. Colours are decided from all of it.
    column, measure
        Which rank metric, and which performance: task, group and metric.
    method
        ``spearman`` or ``pearson``.
    hue, group, legend, ax
        As in `rankscope.plots.metric`.

    Raises
    ------
    RankscopeError
        If there are no such correlations.

    Examples
    --------
    >>> import pandas as pd
    >>> import rankscope as rs
    >>> table = rs.open_results("results").metrics
    >>> scores = table[["run", "step"]].drop_duplicates().assign(
    ...     task="novels", group="all", metric="loss", value=lambda rows: 3 + 1 / (1 + rows["step"])
    ... )
    >>> ax = rs.plots.correlation(
    ...     rs.correlate(table, scores), column="per", measure=("novels", "all", "loss")
    ... )
    >>> [label.get_text() for label in ax.get_yticklabels()][:4]
    ['q', 'k', 'v', 'o']
    """
    correlations, hue = by_group(correlations, group, hue)
    wanted = dict(zip(("task", "group", "metric"), measure, strict=True))
    wanted |= {"column": column, "method": method}
    rows = correlations[np.logical_and.reduce([correlations[c] == wanted[c] for c in wanted])]
    if rows.empty:
        raise WrongSettingError(f"no {method} correlations of {column!r} with {measure!r}")
    roles = in_order(correlations["role"])
    names = sorted(distinct(correlations, hue), key=str)
    over = runs_over(correlations, hue)
    rows = means_over_runs(rows, hue) if over else rows
    with drawn_on(ax, series_names(correlations, hue), legend=legend) as panel:
        panel.ax.axvline(0, color=GREY, linewidth=0.8, zorder=1)
        kinds = [(name, form) for name in names for form in _forms(correlations)]
        for number, (name, form) in enumerate(kinds):
            dots = rows[(rows[hue] == name) & (rows["form"] == form)]
            offset = SPREAD * ((number + 0.5) / len(kinds) - 0.5)
            heights = dots["role"].map(roles.index).to_numpy(np.float64) + offset
            _draw_dots(panel.ax, dots, heights, style=panel.styles[name], is_pale=form == "levels")
        for name in names:
            panel.series(name)
        for form, note in NOTES.items():
            if rows.loc[rows["form"] == form, "value"].notna().any():
                panel.mark(note, hollow=form == "levels")
        if rows["ci_low"].notna().any():
            interval = "95 % interval, over steps of one training"
            panel.line(f"mean and range of {over.runs}" if over else interval, width=0.9)
        panel.ax.set_yticks(range(len(roles)), [role or "all" for role in roles])
        panel.ax.set_xticks((-1, 0, 1))
        panel.ax.set_xticks((-0.5, 0.5), minor=True)
        limits = {"xlim": (-1.05, 1.05), "ylim": (len(roles) - 0.5, -0.5)}
        panel.ax.set(xlabel=_label(method), **limits)
    return panel.ax


@paper_look()
def rank_and_performance(
    correlations: pd.DataFrame,
    *,
    method: Method = "spearman",
    hue: str = "run",
    group: str | None = None,
) -> Figure:
    """Figure of `correlation` with a panel for every measure, and a row for every rank metric.

    A perplexity is left out beside the loss of the same texts, since their correlations are equal.

    Parameters
    ----------
    correlations
        What `rankscope.correlate` returned.
    method
        ``spearman`` or ``pearson``.
    hue, group
        As for `correlation`.

    Raises
    ------
    RankscopeError
        If there are no correlations, or none of them is defined.

    Examples
    --------
    >>> import rankscope as rs
    >>> table = rs.open_results("results").metrics
    >>> scores = table[["run", "step"]].drop_duplicates().assign(
    ...     task="novels", group="all", metric="loss", value=lambda rows: 3 + 1 / (1 + rows["step"])
    ... )
    >>> figure = rs.plots.rank_and_performance(rs.correlate(table, scores))
    >>> figure.axes[0].get_title()
    'novels: loss'
    """
    if not has_correlations(correlations):
        raise RankscopeError(
            "no correlation is defined: it takes a rank metric and a measure of performance that "
            "both vary, at 4 or more common steps"
        )
    correlations, hue = by_group(correlations, group, hue)
    measures, columns = measures_to_draw(correlations), list(correlations["column"].unique())
    dots = correlations["role"].nunique() * correlations[hue].nunique() * len(_forms(correlations))
    figure, grid = _role_grid(len(columns), len(measures), dots=dots)
    for column, line in zip(columns, grid, strict=True):
        for measure, ax in zip(measures, line, strict=True):
            correlation(
                correlations,
                column=column,
                measure=measure,
                method=method,
                hue=hue,
                legend=False,
                ax=ax,
            )
            ax.set_xlabel("")
        row_title(line[-1], quantity(column).symbol)
    inches = INSIDE * figure_width() / len(measures)
    for measure, ax in zip(measures, grid[0], strict=True):
        ax.set_title(name_title(_measure_name(measure), inches))
    figure.supxlabel(_label(method))
    shared_legend(figure, [ax for line in grid for ax in line], hole=None)
    return figure


def has_correlations(correlations: pd.DataFrame) -> bool:
    """Whether any correlation is defined."""
    return bool(correlations["value"].notna().any())


def _forms(correlations: pd.DataFrame) -> list[str]:
    """The forms that some correlation is defined in."""
    known = {*correlations.loc[correlations["value"].notna(), "form"]}
    return [form for form in NOTES if form in known]


def _role_grid(lines: int, columns: int, *, dots: int) -> tuple[Figure, list[list[Axes]]]:
    size = (figure_width(), 0.5 + lines * (0.3 + 0.065 * dots))
    figure, grid = new_figure(lines, columns, size=size)
    for line in grid:
        for ax in line:
            ax.grid(visible=False, axis="y")
            ax.tick_params(axis="y", length=0)
    return figure, grid


def _draw_dots(
    ax: Axes,
    series: pd.DataFrame,
    heights: NDArray[np.float64],
    *,
    style: SeriesStyle,
    is_pale: bool,
) -> None:
    alpha = PALE if is_pale else 1.0
    ax.hlines(
        heights, series["ci_low"], series["ci_high"], color=style.color, alpha=alpha, linewidth=0.9
    )
    ax.plot(
        series["value"],
        heights,
        linestyle="",
        marker=style.marker,
        color=style.color,
        markerfacecolor="white" if is_pale else style.color,
        markersize=3,
        clip_on=False,
        zorder=3,
    )


def _measure_name(measure: tuple[str, str, str]) -> str:
    task, group, metric = measure
    part = "" if group == "all" else f"{group.partition(':')[2]} "
    return f"{task}: {part}{metric}".replace("_", " ")


def _label(method: Method) -> str:
    return {"spearman": r"Spearman's $\rho$", "pearson": "Pearson's $r$"}[method]
