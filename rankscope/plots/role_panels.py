"""Figures of one metric with a panel for every role: ranks, κ, tails and outliers."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.typing import LineStyleType

from rankscope.plots.grid import panel_figure
from rankscope.plots.marks import mark_end
from rankscope.plots.metric_lines import metric
from rankscope.plots.panel import Panel
from rankscope.plots.published_lines import draw_published_spectra, fit_published
from rankscope.plots.style import paper_look, series_styles
from rankscope.statistics.published_rows import published_spectra
from rankscope.statistics.rank_limits import Limit, rank_limits, sides
from rankscope.statistics.replicates import by_group
from rankscope.statistics.row_choice import chosen_rows, series_names, titles_with_rank

NEAR_ZERO, HALF = 0.3, 0.5
LIMIT_WIDTH = 0.6
LIMIT_DASHES: tuple[LineStyleType, ...] = ((0, (6, 2)), (0, (6, 2, 1, 2)))
GAUSSIAN_OUTLIERS = 0.01


@paper_look()
def per(
    table: pd.DataFrame,
    component: str = "weight",
    *,
    hue: str = "run",
    group: str | None = None,
    published: bool = False,
) -> Figure:
    """Figure of the proportional effective rank over training, a panel for every role.

    Lines, bands and hollow markers as in `metric`. A dotted line is the PER that a Gaussian matrix
    of the shape would have: without it roles of different shapes are not comparable. Where the
    construction limits the rank, a thin line in the colour of the series is this limit over
    min(m, n): for adapters, merges and attention circuits their own rank. Updates over a whole
    cycle have at most the adapter rank r; changes between two states of live adapters up to 2r.

    Parameters
    ----------
    table
        The metrics table.
    component
        ``weight``, ``update``, ``adapter``, ``gradient``, …
    hue, group
        The column that identifies the lines, or a pattern that groups runs into replicates, as in
        `metric`.
    published
        Also draw the curves of `rankscope.published.weiss2025`, in grey, where they are of the same
        component, role and shape.

    Raises
    ------
    RankscopeError
        If the table has no rows of this component, or nothing of the kind is published.

    Examples
    --------
    >>> import rankscope as rs
    >>> table = rs.open_results("results").metrics
    >>> figure = rs.plots.per(table, "update", group="relora|full")
    >>> [ax.get_title() for ax in figure.axes][:2]
    ['q  16×16', 'k  8×16']
    """
    table, hue = by_group(table, group, hue)
    rows = chosen_rows(table, component=component)
    curves = published_spectra(table, "per", component) if published else None

    def add(panel: Panel, role: str) -> None:
        draw_published_spectra(panel, curves, role)
        draw_gaussian_baseline(panel, rows[rows["role"] == role])
        for limit, dashes in zip(rank_limits(table, component, role), LIMIT_DASHES, strict=False):
            _draw_limit(panel, limit, hue, dashes)

    figure = _of_roles(table, hue, ("per", component), add)
    limit_share(figure.axes[0])
    return fit_published(figure, rows, published=published)


@paper_look()
def condition_number(
    table: pd.DataFrame,
    component: str = "weight",
    *,
    column: str | None = None,
    hue: str = "run",
    group: str | None = None,
    published: bool = False,
) -> Figure:
    """Figure of condition numbers over training on a log axis, a panel for every role.

    Medians and 10–90 % bands over layers; a median that is only a lower bound has an arrow.
    ``condition_number_r`` depends on the rank r that it is taken at: the title of each panel gives
    it, and the legend says so where it differs between the lines.

    Parameters
    ----------
    table
        The metrics table.
    component
        ``weight``, ``update``, ``adapter``, …
    column
        Which condition number. If not given, ``condition_number`` for whole weights, and for
        everything else ``condition_number_r``, since what has low rank by construction has an
        infinite κ; ``condition_number_90`` is the steady one for square matrices.
    hue, group
        The column that identifies the lines, or a pattern that groups runs into replicates, as in
        `metric`.
    published
        As for `per`; the published condition numbers are means over layers, not medians.

    Raises
    ------
    RankscopeError
        If the table has no rows of this component, the column is unknown, or nothing of the kind is
        published.

    Examples
    --------
    >>> import rankscope as rs
    >>> table = rs.open_results("results").metrics
    >>> figure = rs.plots.condition_number(table, "adapter")
    >>> figure.axes[0].get_title()
    'q  16×16, r = 2'
    """
    if column is None:
        column = "condition_number" if component in ("weight", "base") else "condition_number_r"
    table, hue = by_group(table, group, hue)
    curves = published_spectra(table, column, component) if published else None
    figure = _of_roles(
        table,
        hue,
        (column, component),
        lambda panel, role: draw_published_spectra(panel, curves, role),
    )
    return fit_published(figure, chosen_rows(table, component=component), published=published)


@paper_look()
def tail_index(
    table: pd.DataFrame,
    component: str = "weight",
    *,
    hue: str = "run",
    group: str | None = None,
) -> Figure:
    """Figure of the exponent of the spectrum's tail over training, a panel for every role.

    Lines and bands as in `metric`. The dotted line is the exponent of a Gaussian matrix of the
    shape, 2.1 if square and 3.5 at 1:4: a tail is heavy only as far as it is below that line.

    Parameters and errors as for `per`.

    Examples
    --------
    >>> import rankscope as rs
    >>> figure = rs.plots.tail_index(rs.open_results("results").metrics)
    >>> figure.get_supylabel()
    'tail index (Hill)'
    """
    table, hue = by_group(table, group, hue)
    rows = chosen_rows(table, component=component)

    def add(panel: Panel, role: str) -> None:
        draw_gaussian_baseline(panel, rows[rows["role"] == role], "tail_index_gaussian")

    return _of_roles(table, hue, ("tail_index", component), add)


@paper_look()
def outliers(
    table: pd.DataFrame,
    component: str = "weight",
    *,
    hue: str = "run",
    group: str | None = None,
) -> Figure:
    """Figure of the singular values above a Gaussian bulk over training, a panel for every role.

    Lines and bands as in `metric`. About one Gaussian matrix in a hundred has an outlier, so the
    dotted line is at 0.01.

    Parameters and errors as for `per`.

    Examples
    --------
    >>> import rankscope as rs
    >>> figure = rs.plots.outliers(rs.open_results("results").metrics)
    >>> figure.get_supylabel()
    'outliers above the Gaussian edge'
    """
    table, hue = by_group(table, group, hue)

    def add(panel: Panel, _: str) -> None:
        panel.baseline([GAUSSIAN_OUTLIERS], "Gaussian matrix (one in a hundred has one)")

    return _of_roles(table, hue, ("outliers", component), add)


def _of_roles(
    table: pd.DataFrame, hue: str, of: tuple[str, str], add: Callable[[Panel, str], None]
) -> Figure:
    """A panel of a metric of a component for every role, and what ``add`` draws in it as well."""
    column, component = of

    def draw(role: str, ax: Axes) -> None:
        metric(table, column, component=component, role=role, hue=hue, legend=False, ax=ax)
        add(Panel(ax, series_styles(series_names(table, hue))), role)

    return panel_figure(titles_with_rank(chosen_rows(table, component=component), column), draw)


def limit_share(ax: Axes) -> None:
    """Show a share from 0 to 1, without an end that nothing comes near to."""
    low, high = ax.get_ylim()
    bottom = 0 if low < NEAR_ZERO else low
    ax.set_ylim(bottom, high if high < HALF else 1.02 if bottom == 0 else min(high, 1.02))


def draw_gaussian_baseline(panel: Panel, rows: pd.DataFrame, column: str = "per_gaussian") -> None:
    """Draw what a Gaussian matrix of every shape among the rows has, as a dotted line.

    Not for matrices whose construction keeps them far from it, such as adapters.
    """
    whole = rows[rows["max_rank"] == sides(rows)]
    panel.baseline(sorted(whole[column].dropna().round(6).unique()), "Gaussian matrix")


def _draw_limit(panel: Panel, limit: Limit, hue: str, dashes: LineStyleType) -> None:
    """Draw a limit in the colour of each series, where it is below 1."""
    share = (limit.rows["max_rank"] / sides(limit.rows)).astype(float)
    limits = share.groupby(limit.rows[hue]).max()
    limits = limits[limits < 1]
    for name, height in limits.items():
        style = panel.styles[name]
        panel.ax.axhline(height, color=style.color, linestyle=dashes, linewidth=LIMIT_WIDTH)
        if limits.nunique() > 1:
            mark_end(panel.ax, height, style)
    if len(limits):
        panel.line(limit.label, dashes, width=LIMIT_WIDTH)
