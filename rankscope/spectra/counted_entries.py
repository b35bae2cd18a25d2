"""Sums over the entries of a large matrix in order of size, without sorting them.

Sorting would take longer than all else that is measured of a matrix, save its decomposition.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rankscope.spectra.bounds import Values

# Entries that are counted together agree, as float32 without a sign, in all but the last 14 bits.
# What is then not known of their order is far below what is asked, and the counts are in the cache.
LATER = 14
LATER_BITS, SIZE_BITS = (1 << LATER) - 1, 0x7FFF_FFFF
# One number holds how many entries there are and the sum of their later bits, without rounding.
COUNTED = 2**17  # at a time, so that they are in the cache; at most 2¹⁹: COUNTED·ONE < 2⁵³
ONE = 2**33
Keys = NDArray[np.intp]
IN_FLOAT32 = 2.0**-24  # what rounding to float32 changes in an entry, relative to it


class Sums(NamedTuple):
    """Sums over n absolute values x, each divided by a number near the largest.

    Attributes
    ----------
    unit
        That number.
    total, squares, weighted
        Σx, Σx² and Σ(2i − n − 1)·xᵢ, xᵢ ascending.
    squares_error, weighted_error
        Bounds on what is not known of these two, rounding in float64 apart.
    relative
        Bound on the relative change of each entry.
    """

    unit: float
    total: float
    squares: float
    weighted: float
    squares_error: float = 0.0
    weighted_error: float = 0.0
    relative: float = 0.0


def counted_sums(values: NDArray[Any]) -> Sums | None:
    """Count entries by their leading bits; None if all are zero, or one is NaN or infinite.

    Notes
    -----
    Of c entries between l and l + w, c and their mean l + d are known. Compared with c entries
    of l + d each, Σ(2i − n − 1)·xᵢ has at most c²·d(w − d)/w more, and Σx² at most c·d(w − d), if
    all are at the ends of the interval; two thirds and one third of these, if they are uniform in
    it, which is taken. Nothing is unknown of an entry that is alone, nor of those of bfloat16,
    whose later bits are zero: d = 0.
    """
    held, n, scale = values.ravel(order="K"), values.size, 1.0
    if held.dtype == np.float64:
        largest = max(float(held.max()), -float(held.min()))
        if not 0 < largest < math.inf:
            return None
        scale = math.ldexp(1.0, min(max(math.frexp(largest)[1], -1000), 1000))
    found, counts, later = _counts(held, scale)
    starts = (found << LATER).astype(np.uint32).view(np.float32)
    last_places = np.spacing(starts).astype(np.float64)
    beyond, widths = later / counts * last_places, last_places * (LATER_BITS + 1)
    x = starts + beyond
    if not 0 < x[-1] < math.inf:  # the bits of NaN are above those of infinity
        return None
    unit = float(x[-1])
    x, beyond, widths = x / unit, beyond / unit, widths / unit
    sums = counts * x
    spread = np.where(counts > 1, beyond * (widths - beyond), 0.0)
    more_squares = float(counts @ spread)
    more_weighted = float(counts**2 @ (spread / widths))
    return Sums(
        unit * scale,
        float(sums.sum()),
        float(sums @ x) + more_squares / 3,
        float((2 * counts.cumsum() - counts - n) @ sums) + more_weighted * 2 / 3,
        more_squares * 2 / 3,
        more_weighted * 2 / 3,
        0.0 if held.dtype == np.float32 else IN_FLOAT32,
    )


def _counts(held: NDArray[Any], scale: float) -> tuple[Keys, Values, Values]:
    """Leading bits that occur, ascending; how often they do; and the sum of the later bits."""
    tables = [
        _table(held[start : start + COUNTED], scale) for start in range(0, held.size, COUNTED)
    ]
    first = min(start for start, _ in tables)
    stop = max(start + len(table) for start, table in tables)
    counts, later = np.zeros((2, stop - first))
    for start, table in tables:
        here = slice(start - first, start - first + len(table))
        many = np.floor(table / ONE)
        counts[here] += many
        later[here] += table - many * ONE
    (found,) = (counts > 0).nonzero()
    return found + first, counts[found], later[found]


def _table(held: NDArray[Any], scale: float) -> tuple[int, Values]:
    """The least leading bits that occur; and for these and all above, count·ONE + later bits."""
    if held.dtype != np.float32:
        held = np.divide(held, scale, dtype=np.float64).astype(np.float32)
    bits = held.view(np.uint32) & SIZE_BITS
    first = int(bits.min()) >> LATER
    bits -= np.uint32(first << LATER)
    later = bits & LATER_BITS
    bits >>= LATER
    keys = bits.astype(np.intp)
    if not later.any():
        return first, np.multiply(np.bincount(keys), ONE, dtype=np.float64)
    both = later.astype(np.float64)
    both += ONE
    return first, np.asarray(np.bincount(keys, both), np.float64)
