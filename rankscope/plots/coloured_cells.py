"""Numbers by place as coloured cells: their scale, their bar, and hatching where one is missing."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colorbar import Colorbar
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from rankscope.plots.panel import GREY, least_span
from rankscope.plots.style import COLORS


def draw_cells(ax: Axes, cells: pd.DataFrame, norm: Normalize) -> QuadMesh:
    """Draw a table of numbers as colours, its index upwards; missing ones are hatched."""
    mesh = ax.pcolormesh(
        _edges(cells.columns.to_numpy(dtype=float)),
        _edges(cells.index.to_numpy(dtype=float)),
        cells.to_numpy(dtype=float),
        cmap=COLORS,
        norm=norm,
        # A PDF viewer would show hairlines between ten thousand vector cells.
        rasterized=True,
    )
    ax.patch.set(facecolor="white", edgecolor="0.6", hatch="/////")
    ax.grid(visible=False)
    ax.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True, min_n_ticks=1))
    return mesh


def color_bar(mesh: QuadMesh, panels: list[Axes], label: str) -> Colorbar:
    """Draw the labelled colours of a map beside its panels."""
    is_tall = len(panels) > 1
    bar = panels[0].figure.colorbar(
        mesh, ax=panels, label=label, aspect=40 if is_tall else 20, pad=0.03 if is_tall else 0.05
    )
    low, high = mesh.get_clim()
    if isinstance(mesh.norm, LogNorm) and low >= 1e-3 and high <= 1e3:
        bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        bar.ax.yaxis.set_minor_formatter(NullFormatter())
    return bar


def say_none(ax: Axes, name: str) -> None:
    """Say in empty axes what a run lacks."""
    ax.grid(visible=False)
    ax.text(0.5, 0.5, f"no {name}", color=GREY, transform=ax.transAxes, ha="center", va="center")


def has_hatched(mesh: QuadMesh) -> bool:
    """Whether some cell of a map has no number."""
    values: NDArray[np.float64] = np.ma.filled(np.ma.asarray(mesh.get_array(), dtype=float), np.nan)
    return bool(np.isnan(values).any())


def colour_scale(limits: tuple[float, float], *, log: bool = False) -> Normalize:
    """Colours between two limits, on a log scale if wanted or if they are a decade apart.

    They are at least as far apart as `least_span` says.
    """
    least, greatest = limits
    log = log or greatest > 10 * least > 0
    ends = least_span(*limits, log=log) if least > 0 or not log else limits
    return LogNorm(*ends) if log else Normalize(*ends)


def is_beyond(mesh: QuadMesh, ax: Axes) -> bool:
    """Whether the axes of a map, which other maps share, go on where it has no cells."""
    cells, view = mesh.get_datalim(ax.transData), ax.viewLim
    return bool(
        cells.x0 > view.x0 or cells.x1 < view.x1 or cells.y0 > view.y0 or cells.y1 < view.y1
    )


def _edges(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Borders of cells, halfway between neighbours; outer cells are symmetric."""
    if centres.size == 1:
        return np.array([centres[0] - 0.5, centres[0] + 0.5])
    between = (centres[1:] + centres[:-1]) / 2
    first, last = 2 * centres[0] - between[0], 2 * centres[-1] - between[-1]
    return np.concatenate([[first], between, [last]])
