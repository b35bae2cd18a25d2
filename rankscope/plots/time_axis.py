"""The axis of steps in all figures: its ticks and label, restarts, and a log scale."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter

from rankscope.plots.panel import GREY, ROUND, Panel
from rankscope.statistics.restart_schedules import restarts_of, schedules
from rankscope.statistics.row_choice import step_label

MOST_SCHEDULES = 3
MOST_PER_INCH = 20
LENGTH, PITCH = 0.055, 0.07  # inches of a restart's tick, and from one row of them to the next
ABOVE_MAP = 0.03  # inches of a tick, below the title
ON_TOP = "; ticks on top: restarts"
"""What the label of the colours of a single map says of them."""
MARGIN = 1.1  # of a log axis
WIDTH = 0.8
FIRST_PART = 0.5  # decades that the linear part of a log axis takes


class StepLocator(MaxNLocator):
    """Ticks of an axis that counts steps: whole numbers.

    `log_steps` knows the axes of steps by it, and what is drawn on them.

    Attributes
    ----------
    least
        Least step drawn.
    first
        Least positive step drawn; `inf` without any.
    last
        Greatest step drawn. Where that is the least, it is the only tick.
    """

    def __init__(self, least: float, first: float, last: float) -> None:
        super().__init__(nbins="auto", steps=ROUND, integer=True, min_n_ticks=1)
        self.least, self.first, self.last = least, first, last

    def tick_values(self, vmin: float, vmax: float) -> Sequence[float]:
        """Places of the ticks between two steps."""
        return [self.least] if self.least == self.last else super().tick_values(vmin, vmax)


def label_steps(ax: Axes, table: pd.DataFrame, rows: pd.DataFrame) -> None:
    """Label the axis of the steps of rows, where points mark restarts already or there are none."""
    ax.set_xlabel(step_label(table))
    steps = rows["step"].to_numpy(np.float64, na_value=np.nan)
    least = float(np.nanmin(steps, initial=math.inf))
    first = float(np.nanmin(steps, initial=math.inf, where=steps > 0))
    last = float(np.nanmax(steps, initial=-math.inf))
    other = ax.xaxis.get_major_locator()
    if isinstance(other, StepLocator):  # of a panel that shares the axis
        least, first = min(least, other.least), min(first, other.first)
        last = max(last, other.last)
    ax.xaxis.set_major_locator(StepLocator(least, first, last))


def time_axis(panel: Panel, table: pd.DataFrame, rows: pd.DataFrame, *, hue: str) -> None:
    """Label the axis of steps, and mark the restarts of what is drawn, by ticks at its foot.

    The ticks have the colour of the only series that restarts then, or are grey. Series with other
    restarts have a row of ticks of their own. Where ticks would be too dense to be told apart, or
    there are more than three schedules, the legend says that they are not marked.

    Parameters
    ----------
    panel
        Where the rows were drawn.
    table
        The whole table, which knows the restarts: see `rankscope.statistics.restart_schedules`.
    rows
        The rows drawn, with columns ``run`` and ``step``.
    hue
        The column that identifies the lines.
    """
    ax = panel.ax
    label_steps(ax, table, rows)
    found = schedules(rows, restarts_of(table), hue=hue)
    if not found:
        return
    if len(found) > MOST_SCHEDULES:
        panel.note(f"restarts not marked: {len(found)} schedules")
    elif len(found[0].steps) > MOST_PER_INCH * _inches(ax)[0]:
        panel.note("restarts not marked: too many")
    else:
        for row, schedule in enumerate(found):
            alone = len(schedule.names) == 1
            color = panel.styles[schedule.names[0]].color if alone else GREY
            _draw_ticks(ax, schedule.steps, row * PITCH, color=color)
        panel.mark("restart", "|")


def map_time_axis(ax: Axes, table: pd.DataFrame, rows: pd.DataFrame) -> bool:
    """The same for the map of one run, whose restarts are ticks on top; returns if there are any.

    Where the map is of several runs that restart at different steps, there are none.
    """
    label_steps(ax, table, rows)
    found = schedules(rows.assign(map=0), restarts_of(table), hue="map")
    if len(found) != 1 or len(found[0].steps) > MOST_PER_INCH * _inches(ax)[0]:
        return False
    _draw_ticks(ax, found[0].steps, 1.0, color=GREY, length=ABOVE_MAP)
    return True


def _inches(ax: Axes) -> tuple[float, float]:
    """Approximate width and height of the axes: the layout is made when the figure is drawn."""
    figure, place = ax.get_figure(root=True), ax.get_position()
    width, height = (1.0, 1.0) if figure is None else figure.get_size_inches()
    return float(place.width * width), float(place.height * height)


def _draw_ticks(
    ax: Axes, steps: Sequence[int], foot: float, *, color: str, length: float = LENGTH
) -> None:
    inches = _inches(ax)[1]
    foot = foot if foot == 1 else foot / inches
    ax.add_collection(
        LineCollection(
            [[(step, foot), (step, foot + length / inches)] for step in steps],
            colors=color,
            linewidths=WIDTH,
            transform=ax.get_xaxis_transform(),
            clip_on=False,
        ),
        autolim=False,
    )


def log_steps(figure: Figure) -> Figure:
    """Give all axes of steps in a figure a log scale, with step 0 in view.

    From 0 to the first positive step that is drawn the scale is linear, and logarithmic from there
    on ("symlog"); the label gives that step. Where nothing is drawn at 0 the whole axis is
    logarithmic. Colours of steps, as in `layer_profile`, stay linear.

    Parameters
    ----------
    figure
        A figure that functions of `rankscope.plots` drew, on their axes or on yours.

    Returns
    -------
    The same figure, changed.

    Examples
    --------
    >>> import rankscope as rs
    >>> figure = rs.plots.log_steps(rs.plots.per(rs.open_results("results").metrics))
    >>> figure.axes[0].get_xscale(), figure.get_supxlabel()
    ('symlog', 'step (log scale from 5 on)')
    """
    remark = ""
    axes = [ax for ax in figure.axes if isinstance(ax.xaxis.get_major_locator(), StepLocator)]
    for ax in axes:
        locator = ax.xaxis.get_major_locator()
        # Axes that share their scale have one locator: the first of them changed it already.
        if isinstance(locator, StepLocator) and math.isfinite(locator.first):
            remark = _set_log(ax, locator)
        if ax.get_xlabel():
            ax.set_xlabel(ax.get_xlabel() + remark)
    if axes and not any(ax.get_xlabel() for ax in axes) and figure.get_supxlabel():
        figure.supxlabel(figure.get_supxlabel() + remark)
    return figure


def _set_log(ax: Axes, of: StepLocator) -> str:
    """Give the axis its log scale; returns a remark about it."""
    shared = ax.get_shared_x_axes().get_siblings(ax)
    low, high = (
        end(float(getattr(one.dataLim, name)) for one in shared)
        for end, name in ((min, "x0"), (max, "x1"))
    )
    has_map = any(isinstance(part, QuadMesh) for one in shared for part in one.collections)
    # A published curve may begin before the rows; the first cell of a map reaches to its left.
    is_from_zero = of.least <= 0 or (low <= 0 and not has_map)
    if not is_from_zero:
        ax.set_xscale("log")
        low = low if low > 0 else of.first / 2  # the border of a map's first cell
        left = low if low < of.first else low / MARGIN
    else:
        ax.set_xscale("symlog", linthresh=of.first, linscale=FIRST_PART)
        left = min(low, -0.15 * of.first)
    # Beyond the cells of a map there is nothing but the hatching of missing ones.
    ax.set_xlim(left, high if has_map else high * MARGIN)
    is_wide = high > 100 * of.first
    digits = [1] if is_wide else [1, 2, 5]
    ticks, between = (_round(of.first, high, some) for some in (digits, range(1, 10)))
    ax.xaxis.set_major_locator(FixedLocator([0.0, *ticks] if is_from_zero else ticks))
    ax.xaxis.set_minor_locator(FixedLocator(between))
    ax.xaxis.set_major_formatter(
        FuncFormatter(lambda step, _: _power(step) if is_wide else f"{step:g}")
    )
    ax.xaxis.set_minor_formatter(NullFormatter())
    return f" (log scale from {of.first:g} on)" if is_from_zero else " (log scale)"


def _power(step: float) -> str:
    return f"$10^{{{round(math.log10(step))}}}$" if step > 0 else "0"


def _round(low: float, high: float, digits: Iterable[int]) -> list[float]:
    """Numbers with one digit between two positive ones."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    numbers = (digit * 10.0**decade for decade in decades for digit in digits)
    return [number for number in numbers if low <= number <= high]
