"""Legends that say what every mark is, once, beside one axes or under all the panels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.typing import LineStyleType

from rankscope.plots.style import SeriesStyle, plain

GREY = "0.35"
WIDEST_IN_CELL = 1.65
LINE_HEIGHT = 0.135


def series_entry(ax: Axes, name: object, style: SeriesStyle, *, marker: bool = True) -> None:
    """Enter a series into the legend as its line with its marker.

    The entry is a line without points: what is drawn has its markers apart from its line, so
    that some of them can be hollow.
    """
    shape = style.marker if marker else ""
    ax.plot([], [], color=style.color, linestyle=style.dashes, marker=shape, label=plain(name))


def mark_entry(ax: Axes, label: str, marker: str, *, hollow: bool = True) -> None:
    """Enter the meaning of a marker, whatever its colour."""
    face = "white" if hollow else GREY
    ax.plot([], [], linestyle="", marker=marker, color=GREY, markerfacecolor=face, label=label)


def line_entry(
    ax: Axes, label: str, linestyle: LineStyleType, *, width: float = 0.9, alpha: float = 1
) -> None:
    """Enter the meaning of a kind of line, whatever its colour."""
    ax.plot([], [], color=GREY, linestyle=linestyle, linewidth=width, alpha=alpha, label=label)


def band_entry(ax: Axes, label: str) -> None:
    """Enter what the bands are, whatever their colour."""
    ax.fill_between([], [], [], color=GREY, alpha=0.25, linewidth=0, label=label)


def entries(panels: Iterable[Axes]) -> tuple[list[Artist], list[str]]:
    """Legend entries of all the panels, each text once, series before explanations."""
    by_label: dict[str, Artist] = {}
    for ax in panels:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            by_label.setdefault(label, handle)
    order = sorted(by_label, key=lambda label: _is_explanation(by_label[label]))
    return [by_label[label] for label in order], order


def _is_explanation(handle: Artist) -> bool:
    color = getattr(handle, "get_color", lambda: GREY)()
    return isinstance(color, str) and color == GREY


def draw_legend(ax: Axes, *, place: Literal["best", "upper right"] = "best") -> None:
    """Draw the legend of one axes inside of it, series first."""
    handles, labels = entries([ax])
    ax.legend(handles, labels, loc=place)


def shared_legend(figure: Figure, panels: list[Axes], *, hole: Axes | None) -> None:
    """Draw one legend for all the panels: in an empty cell if it fits there, else above them.

    Above, the figure grows by the legend's height.
    """
    handles, labels = entries(panels)
    entry = _entry_width(labels)
    if hole is not None and entry < WIDEST_IN_CELL:
        hole.legend(handles, labels, loc="center left", borderaxespad=0)
    else:
        columns = max(1, min(len(labels), int(figure.get_figwidth() / entry)))
        lines = math.ceil(len(labels) / columns)
        figure.set_figheight(figure.get_figheight() + LINE_HEIGHT * lines)
        figure.legend(handles, labels, loc="outside upper center", ncols=columns)


def _entry_width(labels: list[str]) -> float:
    """Inches that the widest entry takes: a character of 7 pt is about 0.045 wide."""
    return 0.45 + 0.045 * max(map(len, labels))
