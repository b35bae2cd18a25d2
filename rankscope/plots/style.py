"""How figures look: column widths of venues, fonts, and a colour, marker and dash per series."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.typing import LineStyleType

from rankscope.errors import WrongSettingError
from rankscope.statistics.feature_rows import few

WIDTHS = {
    "acl": 3.03,
    "acl-text": 6.30,
    "iclr": 5.50,
    "icml": 3.25,
    "icml-text": 6.75,
    "ieee": 3.48,
    "ieee-text": 7.13,
    "neurips": 5.50,
}
"""Widths in inches of a column, or with ``-text`` of a page's whole text, by venue.

They are those of the LaTeX styles, never rounded up by more than TeX lets pass: A4 less 2.5 cm on
either side, with 0.6 cm between columns (acl.sty); 6.75 in with 0.25 in between (ICML); 5.5 in
(ICLR, NeurIPS); 43 pc with 1 pc between (IEEEtran), a little less than the 3.5 and 7.16 in that
IEEE states for its columns.
"""

# Okabe & Ito's colours, without their yellow, which is lost on white paper.
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P")
DASHED: LineStyleType = (0, (4, 1.5))
DOTTED: LineStyleType = ":"
_DASHES: tuple[LineStyleType, ...] = ("-", DASHED, (0, (1, 1)), (0, (5, 1.5, 1, 1.5)))

MOST_LOOKS, FEW_SHADES = 12, 7
COLORS = "viridis"
DARKENING = LinearSegmentedColormap.from_list(
    "steps", mpl.colormaps[COLORS](np.linspace(0.88, 0.0, 64))
)
"""The colours of maps, dark at the end, without the palest ones, which are lost on white paper."""


@dataclass(frozen=True)
class SeriesStyle:
    """What distinguishes one series from the others; each of the three suffices on its own."""

    color: str
    marker: str
    dashes: LineStyleType


def series_styles(names: Iterable[object]) -> dict[Any, SeriesStyle]:
    """Style of every series, by name.

    All the names together decide, in their own order, not that of rows: pass those of the whole
    table, and a panel that lacks a run leaves the others' colours alone. The three cycles have
    different lengths, so that 84 series look different. More than twelve numbers, such as layers,
    are darker the greater they are, and look alike otherwise.
    """
    ordered = sorted({*names}, key=_by_number_then_text)
    if _are_graded(ordered):
        shades = DARKENING(np.linspace(0, 1, len(ordered)))
        looks = (SeriesStyle(to_hex(shade), _MARKERS[0], "-") for shade in shades)
        return dict(zip(ordered, looks, strict=True))
    return {
        name: SeriesStyle(
            _COLORS[place % len(_COLORS)],
            _MARKERS[place % len(_MARKERS)],
            _DASHES[place % len(_DASHES)],
        )
        for place, name in enumerate(ordered)
    }


def in_legend(names: Sequence[object]) -> Sequence[object]:
    """The series that a legend names: all, or a few of many numbers whose shades go on evenly."""
    ordered = sorted(names, key=_by_number_then_text)
    return few(ordered, FEW_SHADES) if _are_graded(ordered) else ordered


def in_series_order(labels: Sequence[str]) -> list[str]:
    """Legend texts of series in the order of their names, which may be numbers."""
    try:
        return sorted(labels, key=float)
    except ValueError:
        return sorted(labels)


def _are_graded(names: Sequence[object]) -> bool:
    return len(names) > MOST_LOOKS and not any(isinstance(name, str) for name in names)


def _by_number_then_text(name: object) -> tuple[bool, float, str]:
    return (True, 0.0, name) if isinstance(name, str) else (False, float(str(name)), "")


def width_in_inches(width: str | float) -> float:
    """Width of a venue's column by its name in `WIDTHS`, or of a number, which may be text.

    Raises
    ------
    WrongSettingError
        For an unknown name, or a width outside of 1 to 40 inches.
    """
    try:
        inches = WIDTHS[width] if width in WIDTHS else float(width)
    except ValueError:
        known = ", ".join(WIDTHS)
        raise WrongSettingError(
            f"unknown venue {width!r}: choose one of {known}, or a number of inches"
        ) from None
    if not 1 <= inches <= 40:
        raise WrongSettingError(f"width {inches:g}: choose between 1 and 40 inches")
    return inches


@contextmanager
def paper_style(width: str | float = "acl-text", *, aspect: float = 0.62) -> Iterator[None]:
    """Draw figures at the size and in the type they will have on paper.

    Text is 8 pt, ticks and legends 7 pt, so a figure must be included at its own width. The
    fonts, Times-like STIX, come with matplotlib: no LaTeX, and the same figure on every machine.
    Fonts are embedded as TrueType, which the venues' format checkers ask for.

    Parameters
    ----------
    width
        A name in `WIDTHS` or a number of inches. Figure-level functions fill this width.
    aspect
        Height of a single panel that fills the width, as a share of it.

    Raises
    ------
    RankscopeError
        For an unknown venue, or a width outside of 1 to 40 inches.

    Examples
    --------
    >>> import rankscope as rs
    >>> table = rs.open_results("results").metrics
    >>> with rs.plots.paper_style("acl"):
    ...     figure = rs.plots.per(table)
    >>> float(figure.get_figwidth())
    3.03
    """
    inches = width_in_inches(width)
    with _settings({**_PAPER, "figure.figsize": (inches, aspect * inches)}):
        yield


def figure_width() -> float:
    """Width in inches of the figures that are made, which `paper_style` sets."""
    return float(mpl.rcParams["figure.figsize"][0])


@contextmanager
def paper_look() -> Iterator[None]:
    """Take type, lines and layout from `paper_style`, and leave the width as it is set.

    It decorates the figure-level functions, which thus look the same wherever they are called.
    """
    with _settings(_PAPER):
        yield


@contextmanager
def _settings(settings: dict[Any, Any]) -> Iterator[None]:
    # Not mpl.rc_context, which puts back every setting: a notebook's backend makes itself
    # interactive when the first figure is made, and would show no figure after that.
    before = {key: mpl.rcParams[key] for key in settings}
    mpl.rcParams.update(settings)
    try:
        yield
    finally:
        mpl.rcParams.update(before)


_PAPER: dict[Any, Any] = {
    "text.usetex": False,
    "font.family": ["STIXGeneral", "DejaVu Sans"],
    "mathtext.fontset": "stix",
    "pdf.fonttype": 42,
    "ps.fonttype": 42,
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "figure.labelsize": 8,
    "figure.titlesize": 9,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 2.0,
    "legend.borderaxespad": 0.3,
    "legend.labelspacing": 0.35,
    "legend.columnspacing": 1.4,
    "axes.linewidth": 0.6,
    "axes.titlepad": 3,
    "axes.labelpad": 2.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    # What is added to all ticks of an axis is above it, where the title is.
    "axes.formatter.useoffset": False,
    "axes.grid": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "xtick.major.pad": 2,
    "ytick.major.pad": 2,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.5,
    "lines.markeredgewidth": 0.8,
    "hatch.linewidth": 0.4,
    "figure.dpi": 150,
    "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.025,
    "figure.constrained_layout.w_pad": 0.025,
    "savefig.dpi": 300,
    # Cutting to the ink would change the width that the page was measured for.
    "savefig.bbox": None,
}
