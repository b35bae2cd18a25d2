"""A rank over the steps as a staircase: its mean, its range, its merges, and an effective rank."""

from __future__ import annotations

from typing import Literal

import pandas as pd
from matplotlib.axes import Axes

from rankscope.plots.metric_lines import BAND_ALPHA
from rankscope.plots.style import SeriesStyle

THIN = 0.7
SMALL = 2.5
DASHED = (0, (4, 1.5))


def draw_staircase(
    ax: Axes,
    ranks: pd.DataFrame,
    merges: pd.DataFrame,
    effective: pd.Series[float],
    style: SeriesStyle,
    *,
    tread: Literal["pre", "post"],
) -> None:
    """Draw the stairs of one run.

    Parameters
    ----------
    ax
        Where to draw.
    ranks
        ``step``, ``centre``, ``low`` and ``high``; the band is left out where it has no width.
    merges
        Rows of ``ranks`` that get a marker.
    effective
        Effective rank by step, drawn dashed.
    style
        Colour and marker of the run.
    tread
        Whether a value holds before its step ("pre") or from it on ("post").
    """
    color, steps, stairs = style.color, ranks["step"], f"steps-{tread}"
    ax.plot(steps, ranks["centre"], color=color, drawstyle=stairs)
    ax.plot(
        merges["step"], merges["centre"], linestyle="", marker=style.marker, ms=SMALL, color=color
    )
    if (ranks["low"] < ranks["high"]).any():
        ax.fill_between(
            steps,
            ranks["low"],
            ranks["high"],
            step=tread,
            color=color,
            alpha=BAND_ALPHA,
            linewidth=0,
        )
    ax.plot(
        effective.index,
        effective,
        color=color,
        linewidth=THIN,
        linestyle=DASHED,
        drawstyle=stairs,
    )
