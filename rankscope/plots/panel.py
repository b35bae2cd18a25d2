"""`Panel`: the one core of the axes-level functions, from the look of each series to the legend."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib.pyplot as plt
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import (
    FuncFormatter,
    LogFormatterMathtext,
    LogLocator,
    MaxNLocator,
    NullFormatter,
)
from matplotlib.typing import LineStyleType

from rankscope.plots.label_texts import legend_names
from rankscope.plots.style import DOTTED, SeriesStyle, in_legend, in_series_order, series_styles
from rankscope.statistics.replicates import Over
from rankscope.statistics.step_summary import band_text, line_text

GREY = "0.35"
CHANCE_WIDTH = 0.9
"""Of dotted lines, at what chance gives."""
LEAST_RATIO, LEAST_SHARE, ERRORS = 1.05, 1e-3, 4
FEW_TICKS = 4
ROUND = [1, 2, 2.5, 5, 10]
"""Steps from one tick to the next, times a power of ten."""


@dataclass(frozen=True)
class Panel:
    """Axes to draw on, with a style for every series and the entries of their legend.

    Legend entries are marks without points: lines are drawn apart from their markers, so that some
    markers can be hollow, and a grey entry says what a mark means in whatever colour.
    """

    ax: Axes
    styles: Mapping[Any, SeriesStyle]

    def series(
        self, name: object, *, marker: bool = True, dashes: LineStyleType | None = None
    ) -> SeriesStyle:
        """Enter a series into the legend; returns its style."""
        style = self.styles[name]
        self.ax.plot(
            [],
            [],
            color=style.color,
            linestyle=style.dashes if dashes is None else dashes,
            marker=style.marker if marker else "",
            label=legend_names(self.styles)[name] if name in in_legend([*self.styles]) else "_",
        )
        return style

    def line(
        self, label: str, dashes: LineStyleType = "-", *, width: float = 1.1, alpha: float = 1
    ) -> None:
        """Enter the meaning of a kind of line."""
        self.ax.plot(
            [], [], color=GREY, linestyle=dashes, linewidth=width, alpha=alpha, label=label
        )

    def mark(self, label: str, marker: str = "o", *, hollow: bool = True) -> None:
        """Enter the meaning of a marker."""
        face = "white" if hollow else GREY
        self.ax.plot(
            [], [], linestyle="", marker=marker, color=GREY, markerfacecolor=face, label=label
        )

    def band(self, label: str) -> None:
        """Enter what the bands are."""
        self.ax.fill_between([], [], [], color=GREY, alpha=0.25, linewidth=0, label=label)

    def baseline(self, heights: Collection[float], label: str) -> None:
        """Draw dotted lines across the panel, at heights that chance gives, and what they are."""
        for height in heights:
            self.ax.axhline(height, color=GREY, linestyle=DOTTED, linewidth=CHANCE_WIDTH, zorder=1)
        if heights:
            self.line(label, DOTTED, width=CHANCE_WIDTH)

    def summarised(self, column: str, over: Over, *, has_band: bool) -> None:
        """Enter what the lines and bands of a metric are over, and which steps that leaves out."""
        if over:
            self.line(line_text(column, over))
        if has_band:
            self.band(band_text(column, over))
        self.left_out(over)

    def left_out(self, over: Over) -> None:
        """Enter how many points are not drawn since some run of their group lacks them."""
        if over.left_out:
            self.note(f"left out: {over.left_out} points that some run of a group lacks")

    def note(self, label: str) -> None:
        """Enter a remark without a mark."""
        self.ax.plot([], [], linestyle="", color=GREY, label=label)


@contextmanager
def drawn_on(
    ax: Axes | None,
    names: Iterable[object],
    *,
    legend: bool,
    place: Literal["best", "upper right"] = "best",
) -> Iterator[Panel]:
    """Yield the panel that an axes-level function draws; at the end, draw its legend if wanted.

    Parameters
    ----------
    ax
        Where to draw; the current axes if not given.
    names
        Every series of the study, so that each keeps its look where others are missing.
    legend
        Whether to draw a legend; its entries are there either way.
    place
        Where in the axes the legend is.
    """
    panel = Panel(plt.gca() if ax is None else ax, series_styles(names))
    yield panel
    if legend:
        handles, labels = entries([panel.ax])
        panel.ax.legend(handles, labels, loc=place)


def entries(panels: Iterable[Axes]) -> tuple[list[Artist], list[str]]:
    """Legend entries of all the panels, each text once: series in order, then explanations.

    Of "mean over layers" in one panel and "mean over layers and experts" in another, which look
    alike, only the longer is an entry: a matrix without experts is the only one of its layer.
    """
    by_label: dict[str, Artist] = {}
    for ax in panels:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            by_label.setdefault(label, handle)
    series = [label for label in by_label if not is_explanation(by_label[label])]
    others = [label for label in by_label if is_explanation(by_label[label])]
    order = in_series_order(series) + [
        label for label in others if not any(one.startswith(f"{label} and ") for one in others)
    ]
    return [by_label[label] for label in order], order


def is_explanation(handle: Artist) -> bool:
    """Whether a legend entry says what a mark means, in whatever colour, and names no series."""
    color = getattr(handle, "get_color", lambda: GREY)()
    return isinstance(color, str) and color.startswith("0.")


def least_span(
    low: float, high: float, *, log: bool = False, error: float = 0.0
) -> tuple[float, float]:
    """Limits around these that are wide enough not to make differences out of noise.

    On a log axis they are at least 5 % apart, otherwise at least a thousandth of the greater one,
    and four times the error to which the values are known.

    Parameters
    ----------
    low, high
        Least and greatest value; positive for a log axis.
    log
        Whether the axis is logarithmic.
    error
        The absolute error of the values.
    """
    if log:
        factor = math.sqrt(max(1.0, LEAST_RATIO * low / high))
        return low / factor, high * factor
    least = max(LEAST_SHARE * max(abs(low), abs(high)), ERRORS * error)
    margin = max(0.0, least - (high - low)) / 2
    return low - margin, high + margin


def keep_span(ax: Axes, *, log: bool = False, error: float = 0.0) -> None:
    """Let the axis of y show at least the `least_span` of what is drawn."""
    low, high = map(float, ax.dataLim.intervaly)
    if not (math.isfinite(low) and math.isfinite(high) and low <= high) or (log and low <= 0):
        return
    limits = least_span(low, high, log=log, error=error)
    if limits != (low, high):
        # Not as limits: another panel that shares the axis may need more.
        ax.update_datalim([(0.0, end) for end in limits], updatex=False)
        ax.autoscale_view(scalex=False)


def start_at_zero(ax: Axes) -> None:
    """Let the axis of y begin at 0; another panel that shares it may need more at the top."""
    ax.set_ylim(bottom=0, auto=True)


def label_log_axis(ax: Axes) -> None:
    """Put readable ticks on a log axis: 1, 2, 5, 10, … where it spans less than two decades.

    Where it spans less than a factor of 4, ticks are at equal distances, all labelled differently.
    """
    keep_span(ax, log=True)
    ax.yaxis.set_minor_formatter(NullFormatter())
    low, high = ax.get_ylim()
    if not 0 < low < high or high / low > 100:
        ax.yaxis.set_major_locator(LogLocator())
        ax.yaxis.set_major_formatter(LogFormatterMathtext())
        return
    few = high / low < FEW_TICKS
    ax.yaxis.set_major_locator(
        MaxNLocator(nbins=4, steps=ROUND) if few else LogLocator(subs=(1, 2, 5))
    )
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
