"""`heatmap` and `heatmaps`: a metric by layer and step, as colours on one scale."""

from __future__ import annotations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from rankscope.errors import RankscopeError
from rankscope.plots.grid import label_figure, new_figure, row_title
from rankscope.plots.panel import GREY, least_span
from rankscope.plots.style import name_titles, paper_look, wrapped
from rankscope.plots.time_axis import map_time_axis, step_label
from rankscope.statistics.quantities import quantity
from rankscope.statistics.replicates import (
    Over,
    are_replicates,
    by_group,
    none_in_common,
    runs_over,
)
from rankscope.statistics.row_choice import (
    chosen_rows,
    distinct,
    in_order,
    require_metric,
    role_name,
)
from rankscope.statistics.step_summary import line_text

COLORS = "viridis"
INSIDE = 0.6  # of the width, which the panels share; labels and the colour bar take the rest
FRAME = 0.6  # inches above and below the panels
ROW_HEIGHT = 0.55
LEAST_HEIGHT = 1.6
TITLE_LINE = 0.13
PARTS = "; parts of cycles: rank r, then up to 2r"
ON_TOP = "; ticks on top: restarts"


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
    require_metric(rows, column)
    limits = value_limits(rows, column) if limits is None else limits
    ax = plt.gca() if ax is None else ax
    mesh = _draw(ax, rows, column, limits)
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

    All panels share one colour scale, from the least to the greatest value of the component. Where
    a run has no such matrices, its panel says so. Changes over parts of a ReLoRA cycle make
    stripes, which the label of the colours explains.

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
    roles, names = in_order(rows["role"]), sorted(distinct(rows, hue), key=str)
    limits = value_limits(rows, column)
    width = float(mpl.rcParams["figure.figsize"][0])
    titles = name_titles(names, INSIDE * width / len(names))
    height = max(FRAME + ROW_HEIGHT * len(roles), LEAST_HEIGHT)
    height += TITLE_LINE * max(title.count("\n") for title in titles)
    figure, grid = new_figure(len(roles), len(names), size=(width, height))
    has_restarts = False
    for role, line in zip(roles, grid, strict=True):
        for name, ax in zip(names, line, strict=True):
            shown = rows[(rows["role"] == role) & (rows[hue] == name)]
            if len(shown):
                _draw(ax, shown, column, limits)
                has_restarts |= map_time_axis(ax, table, shown)
            else:
                say_none(ax, role_name(role, component))
            ax.set_xlabel("")
        row_title(line[-1], role_name(role, component))
    for title, ax in zip(titles, grid[0], strict=True):
        ax.set_title(title)
    _hide_inner_axes(grid)
    has_parts = "window" in rows and bool(rows["window"].eq("within").any())
    remarks = [*([PARTS] if has_parts else []), *([ON_TOP] if has_restarts else [])]
    over = runs_over(rows, hue) if are_replicates(rows, hue) else Over()
    _finish(figure, grid, column, over=over, remarks=remarks)
    label_figure(figure, step_label(table), "layer", height=figure.get_figheight())
    return figure


def _hide_inner_axes(grid: list[list[Axes]]) -> None:
    """Leave ticks to the outer panels: those of fifty maps take seconds to lay out."""
    for line in grid[:-1]:
        for ax in line:
            ax.xaxis.set_visible(False)
    for line in grid:
        for ax in line[1:]:
            ax.yaxis.set_visible(False)


def say_none(ax: Axes, name: str) -> None:
    """Say in empty axes what a run lacks."""
    ax.grid(visible=False)
    ax.text(0.5, 0.5, f"no {name}", color=GREY, transform=ax.transAxes, ha="center", va="center")


def _finish(
    figure: Figure, grid: list[list[Axes]], column: str, *, over: Over, remarks: list[str]
) -> None:
    panels = [ax for line in grid for ax in line]
    mesh = next(part for ax in panels for part in ax.collections if isinstance(part, QuadMesh))
    label = quantity(column).label
    if over:
        label += f"; {line_text(column, over)}"
    label += hatched_text(panels, "undefined") + "".join(remarks)
    color_bar(mesh, panels, wrapped(label, figure.get_figheight() - FRAME))


def hatched_text(panels: list[Axes], why: str) -> str:
    """What hatched cells are, as the end of a label; empty if these maps have none."""
    has_one = any(np.isnan(_values(ax)).any() for ax in panels if ax.collections)
    return f"; hatched: {why}" if has_one else ""


def _draw(ax: Axes, rows: pd.DataFrame, column: str, limits: tuple[float, float]) -> QuadMesh:
    """Draw the map of some rows, of one role and series, with its colours between the limits."""
    log = quantity(column).log
    return draw_cells(ax, layer_cells(rows, column, log=log), colour_scale(limits, log=log))


def draw_cells(ax: Axes, cells: pd.DataFrame, norm: Normalize) -> QuadMesh:
    """Draw a table of numbers as colours, its index upwards; missing ones are hatched."""
    mesh = ax.pcolormesh(
        _edges(cells.columns.to_numpy(dtype=float)),
        _edges(cells.index.to_numpy(dtype=float)),
        cells.to_numpy(dtype=float),
        cmap=COLORS,
        norm=norm,
        # A PDF viewer would show hairlines between ten thousand vector cells.
        rasterized=True,
    )
    ax.patch.set(facecolor="white", edgecolor="0.6", hatch="/////")
    ax.grid(visible=False)
    ax.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, min_n_ticks=1))
    return mesh


def color_bar(mesh: QuadMesh, panels: list[Axes], label: str) -> Colorbar:
    """Draw the labelled colours of a map beside its panels."""
    is_tall = len(panels) > 1
    bar = panels[0].figure.colorbar(
        mesh, ax=panels, label=label, aspect=40 if is_tall else 20, pad=0.03 if is_tall else 0.05
    )
    low, high = mesh.get_clim()
    if isinstance(mesh.norm, LogNorm) and low >= 1e-3 and high <= 1e3:
        bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        bar.ax.yaxis.set_minor_formatter(NullFormatter())
    return bar


def _values(ax: Axes) -> NDArray[np.float64]:
    return np.ma.filled(np.ma.asarray(ax.collections[0].get_array(), dtype=float), np.nan)


def in_layers(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of matrices that belong to a layer."""
    inside = rows[rows["layer"].notna()]
    if inside.empty:
        raise RankscopeError("none of these matrices belongs to a layer: there is no map to draw")
    return inside


def value_limits(rows: pd.DataFrame, column: str) -> tuple[float, float]:
    """Least and greatest finite value of a column."""
    require_metric(rows, column)
    values = rows[column].to_numpy(dtype=np.float64, na_value=np.nan)
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise RankscopeError(f"no value of {column!r} is finite: there is no map to draw")
    return float(finite.min()), float(finite.max())


def colour_scale(limits: tuple[float, float], *, log: bool = False) -> Normalize:
    """Colours between two limits, on a log scale if wanted or if they are a decade apart.

    They are at least as far apart as `least_span` says.
    """
    least, greatest = limits
    log = log or greatest > 10 * least > 0
    ends = least_span(*limits, log=log) if least > 0 or not log else limits
    return LogNorm(*ends) if log else Normalize(*ends)


def layer_cells(rows: pd.DataFrame, column: str, *, log: bool = False) -> pd.DataFrame:
    """Mean (or median) of the finite values of each layer (index) and step (columns).

    Of several runs it is that of the runs, at the steps that all have.
    """
    finite = rows.assign(value=rows[column].astype(float).replace(np.inf, np.nan))
    runs = finite["run"].nunique()
    of_run = finite.groupby(["run", "layer", "step"])["value"]
    values = of_run.median() if log else of_run.mean()
    in_cell = values.groupby(["layer", "step"])
    values = (in_cell.median() if log else in_cell.mean())[in_cell.size() == runs]
    if values.empty:
        raise none_in_common(rows.assign(run_group="one map"), "run_group")
    cells = values.unstack("step")
    layers = range(int(cells.index.min()), int(cells.index.max()) + 1)
    return cells.reindex(index=layers).sort_index(axis="columns")


def _edges(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Borders of cells, half-way between neighbours; outer cells reach as far to either side."""
    if centres.size == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    between = (centres[1:] + centres[:-1]) / 2
    first, last = 2 * centres[0] - between[0], 2 * centres[-1] - between[-1]
    return np.concatenate([[first], between, [last]])
