"""The axis of steps in all figures: its ticks and label, restarts, and a log scale."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rankscope.plots.panel import GREY, Panel
from rankscope.statistics.restart_schedules import restarts_of, schedules

MOST_SCHEDULES = 3
MOST_PER_INCH = 20
LENGTH, PITCH = 0.045, 0.06  # of a restart's tick, and from one row of them to the next
ON_TOP = 0.1
WIDTH = 0.8
FIRST_PART = 0.5  # decades that the linear part of a log axis takes


class StepLocator(MaxNLocator):
    """Ticks of an axis that counts steps: whole numbers.

    `log_steps` knows the axes of steps by it.
    """

    def __init__(self) -> None:
        super().__init__(nbins="auto", steps=[1, 2, 2.5, 5, 10], integer=True, min_n_ticks=1)


def step_label(table: pd.DataFrame) -> str:
    """What the steps of a table count, which results keep beside their tables: ``step``, say."""
    return str(table.attrs.get("unit", "step"))


def label_steps(ax: Axes, table: pd.DataFrame) -> None:
    """Label the axis of steps, where points mark the restarts already or there are none."""
    ax.set_xlabel(step_label(table))
    ax.xaxis.set_major_locator(StepLocator())


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
    label_steps(ax, table)
    found = schedules(rows, restarts_of(table), hue=hue)
    if not found:
        return
    if len(found) > MOST_SCHEDULES:
        panel.note(f"restarts not marked: {len(found)} schedules")
    elif len(found[0].steps) > _most(ax):
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
    label_steps(ax, table)
    found = schedules(rows.assign(map=0), restarts_of(table), hue="map")
    if len(found) != 1 or len(found[0].steps) > _most(ax):
        return False
    _draw_ticks(ax, found[0].steps, 1.0, color=GREY, length=ON_TOP)
    return True


def _most(ax: Axes) -> float:
    figure = ax.get_figure(root=True)
    inches = ax.get_position().width * (0.0 if figure is None else figure.get_figwidth())
    return MOST_PER_INCH * float(inches)


def _draw_ticks(
    ax: Axes, steps: Sequence[int], foot: float, *, color: str, length: float = LENGTH
) -> None:
    ax.add_collection(
        LineCollection(
            [[(step, foot), (step, foot + length)] for step in steps],
            colors=color,
            linewidths=WIDTH,
            transform=ax.get_xaxis_transform(),
            clip_on=False,
            label="_restarts",
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
    axes = [ax for ax in figure.axes if isinstance(ax.xaxis.get_major_locator(), StepLocator)]
    labels: list[str] = []
    for ax in axes:
        siblings = ax.get_shared_x_axes().get_siblings(ax)
        first = min(float(one.dataLim.minposx) for one in siblings)
        at_zero = min(float(one.dataLim.x0) for one in siblings) <= 0
        scale = f" (log scale from {first:g} on)" if at_zero else " (log scale)"
        labels.append(scale)
        if isinstance(ax.xaxis.get_major_locator(), StepLocator):  # shared axes have one scale
            if at_zero:
                ax.set_xscale("symlog", linthresh=first, linscale=FIRST_PART)
            else:
                ax.set_xscale("log")
        if ax.get_xlabel():
            ax.set_xlabel(ax.get_xlabel() + scale)
    if labels and not any(ax.get_xlabel() for ax in axes) and figure.get_supxlabel():
        figure.supxlabel(figure.get_supxlabel() + labels[0])
    return figure
