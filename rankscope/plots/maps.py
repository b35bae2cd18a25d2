"""`heatmap` and `heatmaps`: a metric by layer and step, as colours on one scale."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.plots.coloured_cells import color_bar, colour_scale, draw_cells, say_none
from rankscope.plots.map_grid import finish_maps, map_figure
from rankscope.plots.style import paper_look
from rankscope.plots.time_axis import ON_TOP, map_time_axis
from rankscope.statistics.layer_cells import cell_limits, in_layers, layer_cells
from rankscope.statistics.quantities import quantity
from rankscope.statistics.replicates import by_group, runs_over
from rankscope.statistics.row_choice import chosen_rows, distinct, in_order, role_name, step_label
from rankscope.statistics.step_summary import line_text

LAYER_HEIGHT, LEAST_HEIGHT, MOST_HEIGHT = 0.02, 0.55, 0.9  # inches of a map
PARTS = "parts of cycles: rank r, then up to 2r"


def heatmap(
    table: pd.DataFrame,
    column: str,
    *,
    component: str = "weight",
    run: str | None = None,
    role: str | None = None,
    limits: tuple[float, float] | None = None,
    colorbar: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw a metric of one run and role as colours: layers upwards, steps to the right.

    Cells are as wide as the distance between steps. Several matrices in one cell, such as heads,
    enter by their mean, condition numbers by their median. The scale is logarithmic for those, and
    also where the limits are a decade apart, since a low-rank run beside a full-rank one would be
    all dark. Cells without a value, such as those of zero matrices, are hatched. For several runs,
    such as the rows of one ``run_group`` of `rankscope.grouped`, cells are the mean (or median) of
    the runs, at the steps that all of them have.

    Parameters
    ----------
    table
        The metrics table.
    column
        The metric, as in `rankscope.plots.metric`.
    component, run, role
        Which matrices.
    limits
        Ends of the colour scale, which figures of several panels share; those of the rows drawn
        if not given.
    colorbar
        Whether to draw the labelled colour bar beside the axes.
    ax
        Where to draw; the current axes if not given.

    Raises
    ------
    RankscopeError
        If there are no such rows or none of them belongs to a layer.

    Examples
    --------
    >>> import rankscope as rs
    >>> table = rs.open_results("results").metrics
    >>> ax = rs.plots.heatmap(table, "per", component="update", run="relora", role="down")
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('step', 'layer')
    """
    drawn = quantity(column)
    rows = in_layers(chosen_rows(table, component=component, role=role, run=run))
    cells = layer_cells(rows, column, log=drawn.log)
    limits = cell_limits([cells], column) if limits is None else limits
    ax = plt.gca() if ax is None else ax
    mesh = draw_cells(ax, cells, colour_scale(limits, log=drawn.log))
    ax.set_ylabel("layer")
    label = drawn.label + (ON_TOP if map_time_axis(ax, table, rows) else "")
    if colorbar:
        color_bar(mesh, [ax], label)
    return ax


@paper_look()
def heatmaps(
    table: pd.DataFrame,
    column: str = "per",
    *,
    component: str = "weight",
    hue: str = "run",
    group: str | None = None,
) -> Figure:
    """Figure of `heatmap` panels, a row for every role and a column for every run.

    All panels share one colour scale, from the least to the greatest cell of the component. Where
    a run has no such matrices, its panel says so. Changes over parts of a ReLoRA cycle make
    stripes, which the legend explains.

    Parameters
    ----------
    table
        The metrics table.
    column
        The metric.
    component
        Which matrices; those outside the layers, such as embeddings, are left out.
    hue, group
        What gets a column of panels each: the values of a column, or runs that a pattern puts
        together as replicates.

    Raises
    ------
    RankscopeError
        If there are no such rows.

    Examples
    --------
    >>> import rankscope as rs
    >>> figure = rs.plots.heatmaps(rs.open_results("results").metrics, "stable_rank")
    >>> [ax.get_title() for ax in figure.axes][:2]
    ['full', 'relora']
    """
    table, hue = by_group(table, group, hue)
    rows = in_layers(chosen_rows(table, component=component))
    drawn, shown = quantity(column), dict([*rows.groupby(["role", hue])])
    cells = {place: layer_cells(own, column, log=drawn.log) for place, own in shown.items()}
    scale = colour_scale(cell_limits(cells.values(), column), log=drawn.log)

    def draw(role: str, name: object, ax: Axes) -> None:
        if (role, name) not in shown:
            say_none(ax, role_name(role, component))
        else:
            draw_cells(ax, cells[role, name], scale)
            map_time_axis(ax, table, shown[role, name])

    titles = {role: role_name(role, component) for role in in_order(rows["role"])}
    names = sorted(distinct(rows, hue), key=str)
    height = float(np.clip(LAYER_HEIGHT * rows["layer"].nunique(), LEAST_HEIGHT, MOST_HEIGHT))
    figure, panels = map_figure(titles, names, draw, line_height=height)
    has_parts = "window" in rows and bool(rows["window"].eq("within").any())
    over = runs_over(rows, hue)
    remarks = [*([PARTS] if has_parts else []), *([line_text(column, over)] if over else [])]
    axes = step_label(table), "layer"
    finish_maps(figure, panels, drawn.label, axes=axes, hatched="undefined", remarks=remarks)
    return figure
