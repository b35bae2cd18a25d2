"""What is drawn in axes, for tests."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure


def legend_texts(drawn: Axes | Figure) -> list[str]:
    legends = [drawn.get_legend()] if isinstance(drawn, Axes) else drawn.legends
    return [text.get_text() for legend in legends if legend for text in legend.get_texts()]


def restart_ticks(ax: Axes) -> list[tuple[float, str]]:
    """Step and colour of each tick that marks a restart, row by row."""
    rows = [
        part
        for part in ax.collections
        if type(part) is LineCollection and part.get_transform() == ax.get_xaxis_transform()
    ]
    return [
        (float(path.vertices[0, 0]), to_hex(row.get_color()[0]))
        for row in rows
        for path in row.get_paths()
    ]
