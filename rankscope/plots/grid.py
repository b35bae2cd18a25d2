"""Figures of small panels that share their axes, their labels and one legend."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Literal, TypeVar

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.text import Text

from rankscope.plots.label_texts import CHARACTER, TITLE_CHARACTER, wrapped
from rankscope.plots.panel import GREY, entries
from rankscope.plots.style import figure_width

PANEL_WIDTH = 1.4
PANEL_HEIGHTS = (1.15, 2.2)
FRAME = 0.35  # inches that ticks and the label of x take from a figure's height
WIDEST_IN_CELL = 1.65
BESIDE_ENTRY = 0.45  # inches of a legend's column, besides its texts
LINE_HEIGHT = 0.135
LINE_SPACING = 0.95  # the fonts' own lines are half as high again as their letters
FOOT_SIZE = 6  # points
WIDER = 8 / FOOT_SIZE  # more characters fit than at the size of titles
FOOT_PAD = 0.03  # inches around the foot
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
    width = figure_width()
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
    width = INSIDE_PANEL * figure_width() / columns
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
    _set_lines_close(figure)


def _set_lines_close(figure: Figure) -> None:
    """Set the lines of titles and labels as close as `LINE_HEIGHT` takes them to be."""
    for text in figure.findobj(Text):
        if isinstance(text, Text) and "\n" in text.get_text():
            text.set_linespacing(LINE_SPACING)


def shared_legend(figure: Figure, panels: list[Axes], *, hole: Axes | None) -> None:
    """Draw one legend for all the panels: in an empty cell if it fits there, else above them.

    Above, the figure grows by the legend's height. Without entries there is none.
    """
    _set_lines_close(figure)
    handles, labels = entries(panels)
    if not labels:
        return
    if hole is not None and _legend_width(labels, 1) < WIDEST_IN_CELL:
        hole.legend(handles, labels, loc="center left", borderaxespad=0)
    else:
        width = figure.get_figwidth()
        fitting = (n for n in range(len(labels), 1, -1) if _legend_width(labels, n) < width)
        columns = next(fitting, 1)
        lines = math.ceil(len(labels) / columns)
        figure.set_figheight(figure.get_figheight() + LINE_HEIGHT * lines)
        figure.legend(handles, labels, loc="outside upper center", ncols=columns)


def _legend_width(labels: Sequence[str], columns: int) -> float:
    """Inches that a legend takes, which is filled column by column."""
    texts = (labels[part[0] : part[-1] + 1] for part in np.array_split(range(len(labels)), columns))
    return sum(BESIDE_ENTRY + CHARACTER * max(map(len, column)) for column in texts)


def add_foot(figure: Figure, remarks: Collection[str]) -> None:
    """Write remarks in small grey type below everything else; the figure grows by their height."""
    width = WIDER * (figure.get_figwidth() - 2 * FOOT_PAD)
    written = "\n".join(wrapped(remark, width) for remark in remarks)
    if not written:
        return
    text = figure.text(0, 0, written, color=GREY, size=FOOT_SIZE, verticalalignment="bottom")
    text.set_in_layout(False)
    before, foot = (
        figure.get_figheight(),
        text.get_window_extent().height / figure.dpi + 2 * FOOT_PAD,
    )
    height = before + foot
    figure.set_figheight(height)
    text.set_position((FOOT_PAD / figure.get_figwidth(), FOOT_PAD / height))
    label = figure.get_supxlabel()
    if label:
        figure.supxlabel(label, y=foot / height)
    if figure.get_supylabel():
        _raise_side_label(figure, before, foot)
    engine = figure.get_layout_engine()
    if isinstance(engine, ConstrainedLayoutEngine):
        # A label that has its place is not laid out: its line is left free with the foot.
        bottom = (foot + LINE_HEIGHT * len(label.splitlines())) / height
        engine.set(rect=(0, bottom, 1, 1 - bottom))


def _raise_side_label(figure: Figure, before: float, foot: float) -> None:
    """Keep the label of y beside its panels."""
    label = next(text for text in figure.texts if text.get_text() == figure.get_supylabel())
    x, y = label.get_position()
    label.set_position((x, (y * before + foot) / (before + foot)))
