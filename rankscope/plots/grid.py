"""Figures of small panels that share their axes, their labels and one legend."""

from __future__ import annotations

import math

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.plots.legends import shared_legend

PANEL_WIDTH = 1.4
PANEL_HEIGHTS = (1.15, 2.2)


def panel_grid(
    count: int, *, share_y: bool = True, panel_width: float = PANEL_WIDTH
) -> tuple[Figure, list[Axes], Axes | None]:
    """Make a figure of ``count`` panels with shared axes, or with heights of their own.

    It is as wide as ``figure.figsize`` says, so `paper_style` decides, with as many columns as
    fit at ``panel_width`` inches each.

    Returns
    -------
    The figure, its panels, and an empty cell for the legend, or None if the grid is full.
    """
    width = float(mpl.rcParams["figure.figsize"][0])
    columns = min(count, max(1, int(width / panel_width)))
    lines = math.ceil(count / columns)
    least, most = PANEL_HEIGHTS
    height = min(max(least, 0.55 * width / columns), most)
    figure, grid = new_figure(lines, columns, size=(width, 0.3 + height * lines), share_y=share_y)
    cells = [ax for line in grid for ax in line]
    panels, holes = cells[:count], cells[count:]
    for ax in holes:
        ax.set_axis_off()
    for ax in panels[max(0, count - columns) :]:
        ax.tick_params(labelbottom=True)
    return figure, panels, holes[0] if holes else None


def new_figure(
    lines: int, columns: int, *, size: tuple[float, float], share_y: bool = True
) -> tuple[Figure, list[list[Axes]]]:
    """Make a figure with a grid of axes that share both scales, or only the one of x.

    pyplot forgets the figure at once: a notebook shows it where it is returned, and only there,
    and a program may draw hundreds.
    """
    figure, grid = plt.subplots(
        lines,
        columns,
        sharex=True,
        sharey=share_y,
        squeeze=False,
        figsize=size,
        layout="constrained",
    )
    plt.close(figure)
    for ax in figure.axes:
        # Makes the first ticks, whose look all later ones copy: other settings may hold by then.
        ax.tick_params(which="both")
    return figure, [list(line) for line in grid]


def step_label(table: pd.DataFrame) -> str:
    """Label of the axis of steps: what they count, which results say beside their tables."""
    return str(table.attrs.get("unit", "step"))


def row_title(ax: Axes, text: str) -> None:
    """Title a row of panels, at the right of its last one."""
    ax.annotate(text, (1.02, 0.5), xycoords="axes fraction", verticalalignment="center")


def finish_grid(figure: Figure, panels: list[Axes], *, hole: Axes | None) -> Figure:
    """Move the panels' labels, which are the same, to the figure, and draw the one legend."""
    figure.supxlabel(panels[0].get_xlabel())
    figure.supylabel(panels[0].get_ylabel())
    for ax in panels:
        ax.set(xlabel="", ylabel="")
    shared_legend(figure, panels, hole=hole)
    return figure
