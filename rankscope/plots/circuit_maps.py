"""`head_map` and `head_maps`: a metric of attention circuits by layer and head."""

from __future__ import annotations

from collections.abc import Collection, Iterable

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.plots.coloured_cells import color_bar, colour_scale, draw_cells, say_none
from rankscope.plots.label_texts import name_title
from rankscope.plots.map_grid import BESIDE, finish_maps, map_figure
from rankscope.plots.style import paper_look
from rankscope.statistics.circuit_heads import at_step, of_heads, values_by_chance
from rankscope.statistics.layer_cells import cell_limits, layer_cells
from rankscope.statistics.quantities import quantity
from rankscope.statistics.replicates import by_group, in_common, runs_over
from rankscope.statistics.row_choice import chosen_rows, distinct, span_text, step_label
from rankscope.statistics.step_summary import line_text

CIRCUITS = {"ov": "OV", "qk": "QK", "ov_update": "change of OV", "qk_update": "change of QK"}
GAUSSIAN = "black line: two Gaussian factors"
ROW_HEIGHT = 1.0
ROOM = 0.05  # of the scale, by which it goes on beyond a mark


def head_map(
    table: pd.DataFrame,
    column: str = "rank_utilisation",
    *,
    component: str = "ov",
    run: str | None = None,
    step: int | None = None,
    limits: tuple[float, float] | None = None,
    colorbar: bool = True,
    ax: Axes | None = None,
) -> Axes:
    """Draw a metric of one circuit as colours at one step: layers upwards, heads to the right.

    For metrics of rank, a black line on the colour bar marks the value for the product of two
    Gaussian factors of the same sizes. Cells without a value are hatched.

    Parameters
    ----------
    table
        The metrics table.
    column
        The metric, as in `rankscope.plots.metric`.
    component
        The circuit: ``ov``, ``qk``, or the change of one.
    run
        Which run; needed if there are several.
    step
        Which step; the run's last one with this circuit if not given.
    limits, colorbar, ax
        As in `rankscope.plots.heatmap`.

    Raises
    ------
    RankscopeError
        If there are no such rows, or they are of several runs or not of heads.

    Examples
    --------
    >>> import rankscope as rs
    >>> table = rs.open_results("results").metrics
    >>> ax = rs.plots.head_map(table, "stable_rank", run="relora")
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('head', 'layer')
    """
    rows = chosen_rows(table, component=component, run=run)
    if len(distinct(rows, "run")) > 1:
        runs = ", ".join(map(str, distinct(rows, "run")))
        raise WrongSettingError(f"a map shows one run: choose `run` from {runs}")
    rows = of_heads(at_step(rows, step, table), component)
    by_chance = values_by_chance(rows, column)
    cells = layer_cells(rows, column, across="head", log=quantity(column).log)
    limits = _limits([cells], column, by_chance) if limits is None else limits
    ax = plt.gca() if ax is None else ax
    mesh = _draw(ax, cells, colour_scale(limits, log=quantity(column).log))
    ax.set(xlabel="head", ylabel="layer")
    if colorbar:
        label = quantity(column).label + (f"; {GAUSSIAN}" if by_chance else "")
        _mark(color_bar(mesh, [ax], label).ax, by_chance)
    return ax


@paper_look()
def head_maps(
    table: pd.DataFrame,
    column: str = "rank_utilisation",
    *,
    components: Collection[str] = ("ov", "qk"),
    step: int | None = None,
    hue: str = "run",
    group: str | None = None,
) -> Figure:
    """Figure of `head_map` panels, a row for every run, its circuits side by side on one scale.

    Parameters
    ----------
    table
        The metrics table.
    column
        The metric.
    components
        The circuits to draw; those that are not in the table are left out.
    step
        Which step; each run's last one if not given.
    hue, group
        What gets a row of panels each: the values of a column, or runs that a pattern puts together
        as replicates, whose cells are means over the runs at the last step that all have.

    Raises
    ------
    RankscopeError
        If the table has none of the circuits.

    Examples
    --------
    >>> import rankscope as rs
    >>> figure = rs.plots.head_maps(rs.open_results("results").metrics)
    >>> figure.get_supxlabel()
    'head'
    """
    table, hue = by_group(table, group, hue)
    circuits = [name for name in components if name in distinct(table, "component")]
    if not circuits:
        raise RankscopeError(f"the table has no {' and no '.join(components)}: no map of heads")
    rows = table[table["component"].isin(circuits)]
    parts = rows.groupby([hue, "component"])
    rows = pd.concat(at_step(in_common(own, hue), step, table) for _, own in parts)
    rows = of_heads(rows, circuits[0])
    names, by_chance = sorted(distinct(rows, hue), key=str), values_by_chance(rows, column)
    log = quantity(column).log
    cells = {
        place: layer_cells(own, column, across="head", log=log)
        for place, own in rows.groupby([hue, "component"])
    }
    scale = colour_scale(_limits(cells.values(), column, by_chance), log=log)
    called = {CIRCUITS.get(circuit, circuit): circuit for circuit in circuits}

    def draw(name: object, circuit: str, ax: Axes) -> None:
        if (name, called[circuit]) in cells:
            _draw(ax, cells[name, called[circuit]], scale)
        else:
            say_none(ax, circuit)

    titles = {}
    for name in names:
        at = span_text(rows.loc[rows[hue] == name, "step"])
        titles[name] = f"{name_title(name, BESIDE)}\n{step_label(table)} {at}"
    figure, panels = map_figure(titles, [*called], draw, line_height=ROW_HEIGHT)
    over, label = runs_over(rows, hue), quantity(column).label
    remarks = [*([line_text(column, over)] if over else []), *([GAUSSIAN] if by_chance else [])]
    axes = "head", "layer"
    bar = finish_maps(figure, panels, label, axes=axes, hatched="no value", remarks=remarks)
    _mark(bar.ax, by_chance)
    return figure


def _draw(ax: Axes, cells: pd.DataFrame, scale: Normalize) -> QuadMesh:
    mesh = draw_cells(ax, cells, scale)
    ax.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, min_n_ticks=1))
    return mesh


def _limits(
    maps: Iterable[pd.DataFrame], column: str, by_chance: list[float]
) -> tuple[float, float]:
    low, high = cell_limits(maps, column)
    if not by_chance:
        return low, high
    beside = max(high / low, 1 + ROOM) ** ROOM if low > 0 else 1.0
    return min(low, by_chance[0] / beside), max(high, by_chance[-1] * beside)


def _mark(bar: Axes, by_chance: list[float]) -> None:
    for value in by_chance:
        bar.axhline(value, color="white", linewidth=3)
        bar.axhline(value, color="black", linewidth=1.4)
