"""`feature` and `features`: what a layer carries, against the step."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.plots.grid import panel_figure
from rankscope.plots.interval_lines import draw_intervals
from rankscope.plots.metric_lines import scale_axis
from rankscope.plots.panel import drawn_on
from rankscope.plots.style import paper_look
from rankscope.plots.time_axis import time_axis
from rankscope.statistics.feature_rows import (
    at_layer,
    gaussian_values,
    is_noisy,
    place_titles,
    places_of,
    probe_text,
    require_number,
    rows_at,
)
from rankscope.statistics.interval_points import interval_columns
from rankscope.statistics.quantities import FEATURE_QUANTITIES, quantity
from rankscope.statistics.replicates import by_group, runs_over
from rankscope.statistics.row_choice import series_names


def feature(
    representations: pd.DataFrame,
    column: str = "rankme",
    *,
    layer: int | None = None,
    at: str = "block",
    text: str | None = None,
    features: str | None = None,
    hue: str = "run",
    group: str | None = None,
    legend: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw a number of the features of one place against the step: one line per run.

    The band is the 95 % interval over documents, which is not about other trainings. The dotted
    line is the value for as many independent Gaussian vectors of the same size: ranks are at most
    that of the sample. A line of several runs is their mean, with a band from the least to the
    greatest. A marker is hollow where rounding may move a rank by more than 1 %; where there is no
    number, as with too few tokens, it is at the bottom of the axes. The legend gives the number of
    tokens, which ranks depend on.

    Parameters
    ----------
    representations
        `Results.representations`.
    column
        ``rankme``, ``per``, ``alpha_req``, ``stable_rank``, ``participation_ratio``, each also with
        ``_centred``; ``mean_cosine`` or ``mean_norm``.
    layer, at
        The place: by default the output of the last block. ``at="block"`` takes −1 for the
        embedding and the number of blocks for the features after the last norm.
    text, features
        Which text, and ``all`` or ``last`` tokens; by default the first by name.
    hue, group, legend, ax
        As in `rankscope.plots.metric`.

    Raises
    ------
    RankscopeError
        If there are no such features or no such number.

    Examples
    --------
    >>> import pandas as pd
    >>> import rankscope as rs
    >>> rows = pd.DataFrame({"run": "a", "step": [0, 100], "rankme": [31.0, 20.0]}).assign(
    ...     text="novels", features="all", layer=0, at="block", tokens=4096, dimensions=32
    ... )
    >>> ax = rs.plots.feature(rows, "rankme")
    >>> ax.get_ylabel()
    'RankMe = effective rank of features'
    """
    table, hue = by_group(representations, group, hue)
    rows = rows_at(table, at=at, text=text, features=features)
    require_number(rows, column)
    rows = at_layer(rows, layer, at=at)
    drawn = quantity(column, FEATURE_QUANTITIES)
    with drawn_on(ax, series_names(table, hue), legend=legend) as panel:
        panel.baseline(gaussian_values(rows, column), "Gaussian features of the same size")
        draw_intervals(
            panel,
            rows,
            interval_columns(rows, column),
            hue=hue,
            over=runs_over(rows, hue),
            log=drawn.log,
            noisy=is_noisy(rows, column),
        )
        panel.note(probe_text(rows))
        time_axis(panel, table, rows, hue=hue)
        scale_axis(panel.ax, drawn)
    return panel.ax


@paper_look()
def features(
    representations: pd.DataFrame,
    column: str = "rankme",
    *,
    at: str = "block",
    text: str | None = None,
    features: str | None = None,
    hue: str = "run",
    group: str | None = None,
) -> Figure:
    """Figure of `feature` with a panel for every place; of more than eight, evenly spread ones.

    Parameters and errors as there.

    Examples
    --------
    >>> import pandas as pd
    >>> import rankscope as rs
    >>> rows = pd.DataFrame({"layer": [-1, 0, 1], "at": ["embedding", "block", "final"]}).assign(
    ...     run="a", step=0, text="novels", features="all", rankme=30.0, tokens=4096, dimensions=32
    ... )
    >>> figure = rs.plots.features(rows, "rankme")
    >>> [ax.get_title() for ax in figure.axes if ax.get_title()]
    ['embedding', 'block 0', 'after the last norm']
    """
    table, hue = by_group(representations, group, hue)
    rows = rows_at(table, at=at, text=text, features=features)
    return panel_figure(
        place_titles(places_of(rows)),
        lambda layer, ax: feature(rows, column, layer=layer, at=at, hue=hue, legend=False, ax=ax),
    )
