"""The band and the markers of one series, in its own look."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import ArrayLike

from rankscope.plots.style import SeriesStyle

BAND_ALPHA = 0.18
END_MARK = 2.2
"""Size of the marker at the end of lines that only colour would tell apart."""


def draw_band(
    ax: Axes,
    x: ArrayLike,
    ends: tuple[ArrayLike, ArrayLike],
    style: SeriesStyle,
    *,
    stairs: Literal["pre", "post"] | None = None,
) -> bool:
    """Draw the band of a line between two ends, where it has any width; returns whether it has.

    On a staircase a value holds before its step ("pre") or from it on ("post").
    """
    low, high = (np.asarray(end, np.float64) for end in ends)
    has_width = bool((low < high).any())
    if has_width:
        ax.fill_between(
            np.asarray(x), low, high, step=stairs, color=style.color, alpha=BAND_ALPHA, linewidth=0
        )
    return has_width


def draw_marks(
    ax: Axes,
    x: ArrayLike,
    y: ArrayLike,
    style: SeriesStyle,
    *,
    hollow: ArrayLike = False,
    size: float | None = None,
) -> None:
    """Draw points of a series, above all lines: all of them hollow or filled, or each on its own.

    The size is that of `paper_style` if not given.
    """
    x, y = np.atleast_1d(x), np.atleast_1d(y)
    is_hollow = np.broadcast_to(np.asarray(hollow, bool), x.shape)
    for some, face in ((~is_hollow, style.color), (is_hollow, "white")):
        if some.any():
            ax.plot(
                x[some],
                y[some],
                linestyle="",
                marker=style.marker,
                markersize=size,
                color=style.color,
                markerfacecolor=face,
                zorder=3,
            )


def mark_end(ax: Axes, height: float, style: SeriesStyle) -> None:
    """Mark a line across the panel as one of this series, near its end."""
    ax.plot(
        [0.97],
        [height],
        color=style.color,
        marker=style.marker,
        markersize=END_MARK,
        transform=ax.get_yaxis_transform(),
    )


def last_known(values: pd.Series[float]) -> list[int]:
    """Place of the last value that is known, for ``markevery``; empty if none is."""
    known = np.flatnonzero(values.notna().to_numpy())
    return [int(place) for place in known[-1:]]
