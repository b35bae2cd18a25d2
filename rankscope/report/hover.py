"""A figure as SVG for a page, with the values of its lines and maps under the pointer."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from rankscope.plots.panel import entries
from rankscope.statistics.markup import plain_text

POINTS_PER_INCH = 72  # the unit of matplotlib's SVG
MOST_POINTS = 4000  # of a figure; of more, evenly spaced ones are kept
REFERENCE = re.compile(r'(\bid="|url\(#|href="#)')
USED = re.compile(r'(?:url\(#|href="#)([^")]+)')
DECLARED = re.compile(r' id="([^"]*)"')
SVG = re.compile(rb"<svg\b.*</svg>", re.DOTALL)


@dataclass(frozen=True)
class Series:
    """Points of a line or cells of a map, in units of the page and of the data.

    Attributes
    ----------
    label
        The legend's text for it; empty for a map and for a line that the legend does not name.
    at
        Positions from the left and the top of the figure, in points.
    values
        For a line (x, y) as text; for a map (x, y, value).
    """

    label: str
    at: Sequence[tuple[float, float]]
    values: Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class HoverPanel:
    """One panel: where it is, from the left and the top in points, and what can be pointed at."""

    left: float
    top: float
    right: float
    bottom: float
    title: str
    series: Sequence[Series]


def svg_of(figure: Figure, name: str) -> str:
    """The figure as an ``svg`` element; the same figure gives the same text.

    Ids that nothing refers to are left out, and others begin with ``name``, so that those of
    several figures on a page differ.
    """
    content = io.BytesIO()
    settings: dict[Any, Any] = {"svg.hashsalt": name, "svg.fonttype": "path", "savefig.bbox": None}
    with mpl.rc_context(settings):
        about = {"Date": None, "Creator": None}
        figure.savefig(content, format="svg", transparent=True, metadata=about)
    found = SVG.search(content.getvalue())
    if found is None:
        raise ValueError("matplotlib wrote no svg element")
    text = found.group().decode()
    used = set(USED.findall(text))
    declared: set[str] = set()

    def declaration(match: re.Match[str]) -> str:
        if match[1] not in used or match[1] in declared:
            return ""
        declared.add(match[1])
        return match[0]

    return REFERENCE.sub(rf"\g<1>{name}-", DECLARED.sub(declaration, text))


def hover_panels(figure: Figure) -> list[HoverPanel]:
    """What can be pointed at in a figure that was drawn; colour bars and legends are left out."""
    height = figure.get_figheight() * POINTS_PER_INCH
    scale = POINTS_PER_INCH / figure.dpi
    names = _names(figure)
    panels = []
    for ax in figure.axes:
        series = [*_lines(ax, names, height, scale), *_maps(ax, height, scale)]
        if not series:
            continue
        (left, bottom), (right, top) = ax.bbox.get_points() * scale
        title = plain_text(ax.get_title())
        box = (float(left), height - float(top), float(right), height - float(bottom))
        panels.append(HoverPanel(*box, title, series))
    return _thinned(panels)


def _names(figure: Figure) -> dict[str, str]:
    """Legend texts by the colour of their series."""
    handles, labels = entries(figure.axes)
    return {
        to_hex(handle.get_color()): plain_text(label)
        for handle, label in zip(reversed(handles), reversed(labels), strict=True)
        if isinstance(handle, Line2D)
    }


def _lines(ax: Axes, names: dict[str, str], height: float, scale: float) -> Iterator[Series]:
    points: dict[str, dict[tuple[float, float], None]] = {}
    for line in ax.lines:
        x, y = (np.asarray(values) for values in line.get_data())
        if not line.get_visible() or x.dtype.kind not in "iuf" or line.get_transform() is None:
            continue
        if not line.get_transform().contains_branch(ax.transData):  # a line across the panel
            continue
        label = names.get(to_hex(line.get_color()), "")
        known = points.setdefault(label, {})
        known |= dict.fromkeys(zip(x.astype(float).tolist(), y.astype(float).tolist(), strict=True))
    for label, pairs in points.items():
        shown = [pair for pair in pairs if all(map(math.isfinite, pair)) and _is_in(ax, *pair)]
        if shown:
            at = _positions(ax, np.array(shown), height, scale)
            yield Series(label, at, [tuple(map(_text, pair)) for pair in shown])


def _maps(ax: Axes, height: float, scale: float) -> Iterator[Series]:
    if ax.get_label() == "<colorbar>":
        return
    for mesh in ax.collections:
        if not isinstance(mesh, QuadMesh):
            continue
        corners = np.asarray(mesh.get_coordinates())
        middles = (corners[:-1, :-1] + corners[1:, 1:]) / 2
        values: NDArray[np.float64] = np.ma.filled(
            np.ma.asarray(mesh.get_array(), dtype=float), np.nan
        ).reshape(-1)
        places = middles.reshape(-1, 2)
        known = np.isfinite(values)
        if known.any():
            at = _positions(ax, places[known], height, scale)
            x, y = (_tick_names(axis) for axis in (ax.xaxis, ax.yaxis))
            texts = [
                (x.get(float(a), _text(a)), y.get(float(b), _text(b)), _text(value))
                for (a, b), value in zip(places[known].tolist(), values[known], strict=True)
            ]
            yield Series("", at, texts)


def _tick_names(axis: Any) -> dict[float, str]:
    """What an axis calls its ticks, by place: maps label cells, not numbers."""
    texts = [label.get_text() for label in axis.get_ticklabels()]
    return {
        float(place): plain_text(text)
        for place, text in zip(axis.get_ticklocs(), texts, strict=False)
        if text
    }


def _positions(ax: Axes, data: Any, height: float, scale: float) -> list[tuple[float, float]]:
    pixels = ax.transData.transform(data) * scale
    return [(round(x, 1), round(height - y, 1)) for x, y in pixels.tolist()]


def _is_in(ax: Axes, x: float, y: float) -> bool:
    (left, right), (bottom, top) = sorted(ax.get_xlim()), sorted(ax.get_ylim())
    return left <= x <= right and bottom <= y <= top


def _text(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) < 1e7 else f"{value:.4g}"


def _thinned(panels: list[HoverPanel]) -> list[HoverPanel]:
    total = sum(len(series.at) for panel in panels for series in panel.series)
    every = -(-total // MOST_POINTS)
    if every <= 1:
        return panels
    return [
        HoverPanel(
            panel.left, panel.top, panel.right, panel.bottom, panel.title,
            [Series(one.label, one.at[::every], one.values[::every]) for one in panel.series],
        )
        for panel in panels
    ]  # fmt: skip
