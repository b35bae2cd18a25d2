"""`feature_map` and `feature_maps`: a number of the features by layer and step, as colours."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.plots.coloured_cells import color_bar, colour_scale, draw_cells
from rankscope.plots.map_grid import finish_maps, map_figure
from rankscope.plots.style import paper_look
from rankscope.plots.time_axis import ON_TOP, map_time_axis
from rankscope.statistics.feature_rows import few, places_of, probe_text, require_number, rows_at
from rankscope.statistics.layer_cells import cell_limits, layer_cells
from rankscope.statistics.quantities import FEATURE_QUANTITIES, quantity
from rankscope.statistics.replicates import by_group, runs_over
from rankscope.statistics.row_choice import distinct, step_label

MOST_TICKS = 8
LAYER_HEIGHT, LEAST_HEIGHT, MOST_HEIGHT = 0.16, 1.4, 2.6
SHORT = {"embedding": "emb.", "final": "norm"}


def feature_map(
    representations: pd.DataFrame,
    column: str = "rankme",
    *,
    run: str | None = None,
    at: str = "block",
    text: str | None = None,
    features: str | None = None,
    limits: tuple[float, float] | None = None,
    colorbar: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw a number of the features of one run as colours: layers upwards, steps to the right.

    The lowest row is the embedding and the highest the output of the last norm. Cells without a
    number are hatched. For several runs, cells are their mean at the steps that all of them have.

    Parameters
    ----------
    representations
        `Results.representations`.
    column, at, text, features
        As in `rankscope.plots.feature`.
    run
        Which run; by default all of them.
    limits, colorbar, ax
        As in `rankscope.plots.heatmap`.

    Raises
    ------
    RankscopeError
        If there are no such features or no such number.

    Examples
    --------
    >>> import pandas as pd
    >>> import rankscope as rs
    >>> rows = pd.DataFrame({"layer": [-1, 0, 1], "at": ["embedding", "block", "final"]}).assign(
    ...     run="a", step=0, text="novels", features="all", rankme=[30.0, 20.0, 25.0], tokens=4096
    ... )
    >>> ax = rs.plots.feature_map(rows, "rankme", run="a")
    >>> [label.get_text() for label in ax.get_yticklabels()]
    ['emb.', '0', 'norm']
    """
    rows = rows_at(representations, at=at, text=text, features=features)
    rows = rows if run is None else rows[rows["run"] == run]
    require_number(rows, column)
    drawn = quantity(column, FEATURE_QUANTITIES)
    cells = layer_cells(rows, column, log=drawn.log)
    limits = cell_limits([cells], column) if limits is None else limits
    ax = plt.gca() if ax is None else ax
    mesh = draw_cells(ax, cells, colour_scale(limits, log=drawn.log))
    label_places(ax, places_of(rows))
    ax.set_ylabel("layer")
    label = drawn.label + (ON_TOP if map_time_axis(ax, representations, rows) else "")
    if colorbar:
        color_bar(mesh, [ax], label)
    return ax


@paper_look()
def feature_maps(
    representations: pd.DataFrame,
    column: str = "rankme",
    *,
    at: str = "block",
    text: str | None = None,
    features: str | None = None,
    hue: str = "run",
    group: str | None = None,
) -> Figure:
    """Figure of `feature_map` with a panel for every run, on one colour scale.

    Parameters and errors as there; ``hue`` or ``group`` says what has a panel each: the values of a
    column, or runs that a pattern puts together.

    Examples
    --------
    >>> import pandas as pd
    >>> import rankscope as rs
    >>> rows = pd.DataFrame({"run": ["a", "b"], "rankme": [30.0, 20.0]}).assign(
    ...     step=0, text="novels", features="all", layer=0, at="block", tokens=4096
    ... )
    >>> [ax.get_title() for ax in rs.plots.feature_maps(rows).axes][:2]
    ['a', 'b']
    """
    table, hue = by_group(representations, group, hue)
    rows = rows_at(table, at=at, text=text, features=features)
    require_number(rows, column)
    drawn = quantity(column, FEATURE_QUANTITIES)
    maps = (layer_cells(own, column, log=drawn.log) for _, own in rows.groupby(hue))
    limits = cell_limits(maps, column)

    def draw(_: str, name: object, ax: Axes) -> None:
        own = rows[rows[hue] == name]
        feature_map(own, column, at=at, limits=limits, colorbar=False, ax=ax)

    names = sorted(distinct(rows, hue), key=str)
    height = float(np.clip(LAYER_HEIGHT * len(places_of(rows)), LEAST_HEIGHT, MOST_HEIGHT))
    figure, panels = map_figure({"": ""}, names, draw, line_height=height)
    label_places(panels[0], places_of(rows))
    over = runs_over(rows, hue)
    remarks = [*([f"mean over {over}"] if over else []), probe_text(rows)]
    axes = step_label(table), "layer"
    finish_maps(figure, panels, drawn.label, axes=axes, hatched="no number", remarks=remarks)
    return figure


def label_places(ax: Axes, places: list[tuple[int, str]]) -> None:
    """Label the axis of y with the names of a few places."""
    shown = few(places, MOST_TICKS)
    ax.set_yticks([layer for layer, _ in shown], [SHORT.get(at, str(n)) for n, at in shown])
