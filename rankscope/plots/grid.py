"""Figures of small panels that share their axes, their labels and one legend."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeVar

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope.plots.panel import entries
from rankscope.plots.style import CHARACTER, TITLE_CHARACTER, wrapped

PANEL_WIDTH = 1.4
PANEL_HEIGHTS = (1.15, 2.2)
FRAME = 0.35  # inches that ticks and the label of x take from a figure's height
WIDEST_IN_CELL = 1.65
LINE_HEIGHT = 0.135
Sharing = bool | Literal["col"]
Key = TypeVar("Key")
INSIDE_PANEL = 0.95  # of a column of panels that a title may fill


def panel_grid(
    count: int, *, share_y: bool = True, panel_width: float = PANEL_WIDTH
) -> tuple[Figure, list[Axes], Axes | None]:
    """Make a figure of ``count`` panels that share their axes, or the axis of x only.

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
    lines: int,
    columns: int,
    *,
    size: tuple[float, float],
    share_x: Sharing = True,
    share_y: Sharing = True,
    ratios: Sequence[float] | None = None,
) -> tuple[Figure, list[list[Axes]]]:
    """Make a figure with a grid of axes that share both scales, only that of x, or by column.

    The lines are as high as each other, or in the proportions of ``ratios``.

    pyplot forgets the figure at once: a notebook shows it where it is returned, and only there,
    and a program may draw hundreds.
    """
    figure, grid = plt.subplots(
        lines,
        columns,
        sharex=share_x,
        sharey=share_y,
        height_ratios=ratios,
        squeeze=False,
        figsize=size,
        layout="constrained",
    )
    plt.close(figure)
    for ax in figure.axes:
        # Makes the first ticks, whose look all later ones copy: other settings may hold by then.
        ax.tick_params(which="both")
    return figure, [list(line) for line in grid]


def row_title(ax: Axes, text: str) -> None:
    """Title a row of panels, to the right of its last one."""
    ax.annotate(
        text,
        (1, 0.5),
        xytext=(3, 0),
        xycoords="axes fraction",
        textcoords="offset points",
        verticalalignment="center",
    )


def panel_title(ax: Axes, text: str) -> None:
    """Title a panel, over two lines at its comma where one would reach into the next panel."""
    place = ax.get_subplotspec()
    columns = 1 if place is None else place.get_gridspec().ncols
    width = INSIDE_PANEL * float(mpl.rcParams["figure.figsize"][0]) / columns
    ax.set_title(text if TITLE_CHARACTER * len(text) < width else text.replace(", ", ",\n"))


def panel_figure(
    titles: Mapping[Key, str], draw: Callable[[Key, Axes], object], *, share_y: bool = True
) -> Figure:
    """Figure of a titled panel for every key, which ``draw`` draws with labels and legend entries.

    The labels of the first panel and one legend of all entries are the figure's: see `panel_grid`
    and `finish_grid`.
    """
    figure, panels, hole = panel_grid(len(titles), share_y=share_y)
    for (key, title), ax in zip(titles.items(), panels, strict=True):
        draw(key, ax)
        panel_title(ax, title)
    return finish_grid(figure, panels, hole=hole)


def finish_grid(figure: Figure, panels: list[Axes], *, hole: Axes | None) -> Figure:
    """Move the panels' labels, which are the same, to the figure, and draw the one legend."""
    labels, height = (panels[0].get_xlabel(), panels[0].get_ylabel()), figure.get_figheight()
    for ax in panels:
        ax.set(xlabel="", ylabel="")
    shared_legend(figure, panels, hole=hole)
    label_figure(figure, *labels, height=height)
    return figure


def label_figure(figure: Figure, x: str, y: str, *, height: float) -> None:
    """Label the axes that all panels share, of ``height`` inches with the label of x.

    The label of y is beside the panels, not the legend above them, and wrapped to their height.
    """
    figure.supxlabel(wrapped(x, figure.get_figwidth()), multialignment="center")
    figure.supylabel(
        wrapped(y, height - FRAME),
        y=(height + FRAME) / 2 / figure.get_figheight(),
        multialignment="center",
    )


def shared_legend(figure: Figure, panels: list[Axes], *, hole: Axes | None) -> None:
    """Draw one legend for all the panels: in an empty cell if it fits there, else above them.

    Above, the figure grows by the legend's height. Without entries there is none.
    """
    handles, labels = entries(panels)
    if not labels:
        return
    entry = 0.45 + CHARACTER * max(map(len, labels))
    if hole is not None and entry < WIDEST_IN_CELL:
        hole.legend(handles, labels, loc="center left", borderaxespad=0)
    else:
        columns = max(1, min(len(labels), int(figure.get_figwidth() / entry)))
        lines = math.ceil(len(labels) / columns)
        figure.set_figheight(figure.get_figheight() + LINE_HEIGHT * lines)
        figure.legend(handles, labels, loc="outside upper center", ncols=columns)
