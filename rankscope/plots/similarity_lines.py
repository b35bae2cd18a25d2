"""`similarity` and `similarities`: how alike features are to those elsewhere, against the step."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.errors import WrongSettingError
from rankscope.plots.grid import panel_figure
from rankscope.plots.interval_lines import draw_intervals
from rankscope.plots.marks import mark_end
from rankscope.plots.metric_lines import scale_axis
from rankscope.plots.panel import CHANCE_WIDTH, Panel, drawn_on
from rankscope.plots.published_lines import draw_published_similarities, fit_published
from rankscope.plots.style import DOTTED, paper_look
from rankscope.plots.time_axis import time_axis
from rankscope.statistics.compared_features import PAIR, pairs_to_draw, require_similarity
from rankscope.statistics.feature_rows import at_layer, place_titles, places_of, probe_text, rows_at
from rankscope.statistics.interval_points import interval_columns
from rankscope.statistics.quantities import SIMILARITY_QUANTITIES
from rankscope.statistics.replicates import by_group, runs_over
from rankscope.statistics.row_choice import series_names

Measured = Literal["cka", "cka_biased", "svcca", "pwcca"]
OverSteps = Literal["last", "previous", "runs"]
WITH: dict[OverSteps, str] = {
    "last": "with the last step",
    "previous": "with the previous step",
    "runs": "of two runs",
}
PUBLISHED: Measured = "cka_biased"
"""The only measure that the published study has; see `rankscope.published.weiss2025`."""


def similarity(
    similarities: pd.DataFrame,
    column: Measured = "cka",
    *,
    comparison: OverSteps = "last",
    layer: int | None = None,
    at: str = "block",
    text: str | None = None,
    features: str | None = None,
    hue: str = "run",
    group: str | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw how similar the features of one place are to others, against the step: a line per run.

    The others are those of the same place at the last step, at the previous step, or of another run
    at the same step; then there is a line for each pair of runs, with the restarts of either. CKA
    has its 95 % interval over documents as a band; the other measures have none. For SVCCA and
    PWCCA, a dotted line is the value for independent features of as many directions. Unbiased CKA
    is about 0 by chance, biased CKA is not, so the two are never joined into one line.

    Parameters
    ----------
    similarities
        `Results.similarities`.
    column
        ``cka``, which is unbiased, ``cka_biased``, ``svcca`` or ``pwcca``.
    comparison
        ``last``, ``previous`` or ``runs``.
    layer, at, text, features
        As in `rankscope.plots.feature`.
    hue, group
        The column that identifies the lines, or a pattern that groups runs into replicates. Pairs
        of runs are then pairs of groups, and those of one group show what another seed changes.
    legend, ax
        As in `rankscope.plots.metric`.

    Raises
    ------
    RankscopeError
        If nothing of the kind was compared, or there are more than ten pairs.

    Examples
    --------
    >>> import pandas as pd
    >>> import rankscope as rs
    >>> rows = pd.DataFrame({"run": "a", "step": [0, 100], "cka": [0.4, 0.8]}).assign(
    ...     text="novels", features="all", layer=0, at="block", comparison="last",
    ...     against_run="a", against_step=200, tokens=2048
    ... )
    >>> rs.plots.similarity(rows).get_ylabel()
    'CKA, unbiased, with the last step'
    """
    table, hue = by_group(similarities, group, hue)
    rows = rows_at(table, at=at, text=text, features=features, comparison=comparison)
    require_similarity(rows, column)
    if comparison == "runs":
        rows, hue = pairs_to_draw(rows, hue)
        table, names = rows, series_names(rows, PAIR)
    else:
        names = series_names(table, hue)
    rows = at_layer(rows, layer, at=at)
    drawn, over = SIMILARITY_QUANTITIES[column], runs_over(rows, hue)
    if comparison == "runs":
        over = replace(over, runs=over.runs.replace(" run", " pair", 1))
    with drawn_on(ax, names, legend=legend) as panel:
        _draw_chance(panel, rows, column, hue)
        draw_intervals(panel, rows, interval_columns(rows, column), hue=hue, over=over)
        panel.note(probe_text(rows))
        time_axis(panel, table, rows, hue=hue)
        scale_axis(panel.ax, replace(drawn, label=f"{drawn.label}, {WITH[comparison]}"))
    return panel.ax


@paper_look()
def similarities(
    similarities: pd.DataFrame,
    column: Measured = "cka",
    *,
    comparison: OverSteps = "last",
    at: str = "block",
    text: str | None = None,
    features: str | None = None,
    hue: str = "run",
    group: str | None = None,
    published: bool = False,
) -> Figure:
    """Figure of `similarity` with a panel for every place; of more than eight, evenly spread ones.

    Parameters
    ----------
    similarities, column, comparison, at, text, features, hue, group
        As in `similarity`.
    published
        Also draw the curves of `rankscope.published.weiss2025`, in grey: means over the first or
        the last six of twelve layers, of the outputs of down projections at one token of each
        sample of another text. They are of biased CKA with the last step, so yours must be too, at
        ``mlp``.

    Raises
    ------
    RankscopeError
        As `similarity`, and if nothing of the kind is published.

    Examples
    --------
    >>> import pandas as pd
    >>> import rankscope as rs
    >>> rows = pd.DataFrame({"run": "a", "step": [0, 100], "cka_biased": [0.4, 0.8]}).assign(
    ...     text="novels", features="all", layer=0, at="mlp", comparison="last",
    ...     against_run="a", against_step=200, tokens=2048
    ... )
    >>> figure = rs.plots.similarities(rows, "cka_biased", at="mlp", published=True)
    >>> figure.axes[0].get_title()
    'mlp 0'
    """
    table, hue = by_group(similarities, group, hue)
    rows = rows_at(table, at=at, text=text, features=features, comparison=comparison)
    if published and (column != PUBLISHED or comparison != "last"):
        raise WrongSettingError(
            f"the published curves are of {PUBLISHED!r} with the last step, not of {column!r} "
            f"{WITH[comparison]}: leave out `published`"
        )
    places = places_of(rows)
    layers = [layer for layer, _ in places]

    def draw(layer: int, ax: Axes) -> None:
        similarity(
            rows, column, comparison=comparison, layer=layer, at=at, hue=hue, legend=False, ax=ax
        )
        if published:
            half = _half(layers.index(layer), len(layers))
            draw_published_similarities(Panel(ax, {}), table, at=at, half=half)

    return fit_published(panel_figure(place_titles(places), draw), rows, published=published)


def _draw_chance(panel: Panel, rows: pd.DataFrame, column: str, hue: str) -> None:
    """Draw the value for independent features of as many directions, at each step."""
    chance = f"{column}_chance"
    if chance not in rows or rows[chance].isna().all():
        return
    for name, means in rows.groupby(hue):
        line = means.groupby("step")[chance].mean()
        style = panel.styles[name]
        panel.ax.plot(
            line.index, line, color=style.color, linestyle=DOTTED, linewidth=CHANCE_WIDTH, zorder=1
        )
        if len(line) and rows[hue].nunique() > 1:
            mark_end(panel.ax, float(line.iloc[-1]), style)
    panel.line("independent features", DOTTED, width=CHANCE_WIDTH)


def _half(place: int, count: int) -> str:
    """Which half of the layers a place is in; nothing for the middle one of an odd number."""
    if 2 * place + 1 == count:
        return ""
    return "first_six" if 2 * place < count else "last_six"
