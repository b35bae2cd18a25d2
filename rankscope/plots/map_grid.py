"""`map_figure`: maps with titled rows and columns, one colour bar, and one legend for remarks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure

from rankscope.plots.coloured_cells import color_bar, has_hatched, is_beyond
from rankscope.plots.grid import LINE_HEIGHT, label_figure, new_figure, row_title, shared_legend
from rankscope.plots.label_texts import name_titles, wrapped
from rankscope.plots.panel import Panel
from rankscope.plots.style import figure_width

BESIDE, INSIDE = 1.5, 0.6
"""Inches that labels and colours take beside the maps, at most the rest of this share of all."""
FRAME = 0.6  # inches above and below the maps
LEAST_HEIGHT = 1.6
LEAST_WIDTH = 0.55  # of a map, where it may have a line of its own
HIGHEST, TITLES = 9.0, 0.5  # inches of all maps, which is a page, and of the titles of a block
Line = TypeVar("Line")
Column = TypeVar("Column")


def room() -> float:
    """Inches that all columns of maps share."""
    width = figure_width()
    return max(INSIDE * width, width - BESIDE)


def map_figure(
    lines: Mapping[Line, str],
    columns: Sequence[Column],
    draw: Callable[[Line, Column, Axes], object],
    *,
    line_height: float,
    least_width: float = LEAST_WIDTH,
) -> tuple[Figure, list[Axes]]:
    """Make a figure with a map for every line and column; where they are many, in several blocks.

    Columns that would be narrower than ``least_width`` go on below the others, up to the height of
    a page, with all lines again.

    Parameters
    ----------
    lines
        Titles of the rows of maps, to the right of them.
    columns
        Names of the columns of maps, which are above them.
    draw
        Draws a map in axes, or says there what is missing.
    line_height, least_width
        Of each map, in inches; lower where all lines would not fit on a page.

    Returns
    -------
    The figure and its panels, of which the first is at the top left.
    """
    line_height = min(line_height, HIGHEST / len(lines))
    per_block, blocks = _blocks(len(columns), TITLES + len(lines) * line_height, least_width)
    titles = name_titles(columns, room() / per_block)
    title_height = LINE_HEIGHT * (1 + max(title.count("\n") for title in titles))
    height = max(FRAME + line_height * len(lines), LEAST_HEIGHT) + title_height - LINE_HEIGHT
    height += (blocks - 1) * (line_height * len(lines) + title_height + LINE_HEIGHT)
    width = figure_width()
    figure, grid = new_figure(blocks * len(lines), per_block, size=(width, height))
    panels: list[Axes] = []
    for block in range(blocks):
        first = block * per_block
        here, rows = columns[first : first + per_block], grid[block * len(lines) :][: len(lines)]
        for (line, line_title), row in zip(lines.items(), rows, strict=True):
            for column, ax in zip(here, row, strict=False):
                draw(line, column, ax)
                ax.set(xlabel="", ylabel="")
                panels.append(ax)
            if line_title:
                row_title(row[len(here) - 1], line_title)
            for ax in row[len(here) :]:
                ax.set_axis_off()
        for title, ax in zip(titles[first:], rows[0][: len(here)], strict=False):
            ax.set_title(title)
        _label_outer(rows)
    if _are_square(panels):
        figure.set_layout_engine("compressed")  # few of them would be far apart
    return figure, panels


def finish_maps(
    figure: Figure,
    panels: list[Axes],
    label: str,
    *,
    axes: tuple[str, str],
    hatched: str,
    remarks: Sequence[str] = (),
) -> Colorbar:
    """Draw the one colour bar of maps, label their axes, and put what else they need above them.

    Parameters
    ----------
    figure, panels
        From `map_figure`.
    label
        Of the colours.
    axes
        Labels of x and y.
    hatched
        What hatched cells are, where there are any.
    remarks
        What else a reader should know.
    """
    has_restarts = any(type(part) is LineCollection for ax in panels for part in ax.collections)
    height, panel = figure.get_figheight(), Panel(panels[0], {})
    for remark in remarks:
        panel.note(remark)
    explain_hatching(panel, panels, hatched)
    if has_restarts:
        panel.mark("restart", "|")
    bar = color_bar(next(iter(_meshes(panels))), panels, wrapped(label, height - FRAME))
    shared_legend(figure, panels, hole=None)
    x, y = axes
    if _are_square(panels):  # their left side is not that of the figure
        for ax in panels:
            ax.set_ylabel(y if ax.yaxis.get_visible() else "")
    label_figure(figure, x, "" if _are_square(panels) else y, height=height)
    return bar


def explain_hatching(panel: Panel, maps: Iterable[Axes], why: str) -> None:
    """Enter why cells of maps have no number, and that there are none beyond them, if it is so."""
    meshes = _meshes(maps)
    reasons = [why] if any(map(has_hatched, meshes)) else []
    if any(is_beyond(mesh, ax) for mesh, ax in meshes.items()):
        reasons.append("nothing measured")
    if reasons:
        panel.note(f"hatched: {', or '.join(reasons)}")


def _meshes(maps: Iterable[Axes]) -> dict[QuadMesh, Axes]:
    return {part: ax for ax in maps for part in ax.collections if isinstance(part, QuadMesh)}


def _are_square(panels: list[Axes]) -> bool:
    """Whether maps are matrices, whose cells have equal sides, however wide the figure is."""
    return any(ax.get_aspect() != "auto" for ax in panels)


def _blocks(count: int, height: float, least_width: float) -> tuple[int, int]:
    """How many columns are side by side, and how many blocks of them below one another."""
    wanted = math.ceil(count / max(1, int(room() / least_width)))
    blocks = max(1, min(wanted, int(HIGHEST / height)))
    per_block = math.ceil(count / blocks)
    return per_block, math.ceil(count / per_block)


def _label_outer(rows: list[list[Axes]]) -> None:
    """Leave ticks to the outer maps of a block: those of fifty maps take seconds to lay out."""
    for row in rows[:-1]:
        for ax in row:
            ax.xaxis.set_visible(False)
    for row in rows:
        for ax in row[1:]:
            ax.yaxis.set_visible(False)
    for ax in rows[-1]:
        ax.tick_params(labelbottom=True)
