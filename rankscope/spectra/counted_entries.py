"""Sums over the entries of a large matrix in order of size, without sorting them.

Sorting would take longer than anything else that is measured, except the decomposition.
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
MANTISSA = 23  # bits of float32
LAST_PLACES = np.ldexp(1.0, np.maximum(np.arange(256), 1) - 127 - MANTISSA)  # by exponent bits
COUNTED = 2**17  # at a time, so that they are in the cache; at most 2²²: sums of bits are exact
SAMPLE = 2**12  # entries that show whether there are later bits, unless they are all zero
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
        Bounds on the errors of these two, apart from rounding in float64.
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
    last_places = LAST_PLACES[found >> MANTISSA - LATER]
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
    """Leading bits that occur, ascending; how often they do; and the sum of the later bits.

    Entries with the same leading bits have bits from l to l + w: c of them have a sum from c·l to
    c·(l + w), which says how many there are unless c·w reaches l.
    """
    if not _has_later_bits(held, scale):
        first, tally = _tallied(held, scale)
        (found,) = (tally > 0).nonzero()  # of booleans, which takes less time
        return found + first, tally[found], np.zeros(len(found))
    first, sums = _tallied(held, scale, weighted=True)
    (found,) = (sums > 0).nonzero()
    of_zeros = 0.0 if first else sums[0]
    found = found[first + found > 0]
    sums, found = sums[found], found + first
    least = found * float(1 << LATER)
    counts = np.floor(sums / least)
    later = sums - counts * least
    if not ((later >= 0) & (later < least) & (counts * LATER_BITS < least)).all():
        begin, tally = _tallied(held, scale)
        counts = tally[found - begin]
        later = sums - counts * least
    zeros = held.size - float(counts.sum())
    if zeros:  # and subnormal entries: no sum says how many there are
        found, counts, later = (
            np.concatenate([[one], rest])
            for one, rest in ((0, found), (zeros, counts), (of_zeros, later))
        )
    return found, counts, later


def _has_later_bits(held: NDArray[Any], scale: float) -> bool:
    parts = (held[:SAMPLE], *_parts(held))
    return any(int(np.bitwise_or.reduce(_bits(part, scale))) & LATER_BITS for part in parts)


def _tallied(held: NDArray[Any], scale: float, *, weighted: bool = False) -> tuple[int, Values]:
    """The least leading bits; for these and all above how many entries, or sums of their bits."""
    first, total, parts = 0, np.zeros(0), _parts(held)
    keys, weights = np.empty(len(parts[0]), np.intp), np.empty(len(parts[0]))
    for part in parts:
        here = slice(len(part))
        bits = _bits(part, scale) & SIZE_BITS
        begin = int(bits.min()) >> LATER
        if weighted:
            weights[here] = bits.view(np.int32)
        bits -= np.uint32(begin << LATER)
        bits >>= LATER
        keys[here] = bits
        tally = np.bincount(keys[here], weights[here] if weighted else None)
        table = tally.astype(np.float64, copy=False)
        if not len(total):
            first, total = begin, table
            continue
        start, stop = min(first, begin), max(first + len(total), begin + len(table))
        if len(total) < stop - start:
            before = total
            total = np.zeros(stop - start)
            total[first - start : first - start + len(before)] = before
            first = start
        total[begin - first : begin - first + len(table)] += table
    return first, total


def _parts(held: NDArray[Any]) -> list[NDArray[Any]]:
    size = -(-held.size // -(-held.size // COUNTED))  # of parts that are about equal
    return [held[start : start + size] for start in range(0, held.size, size)]


def _bits(held: NDArray[Any], scale: float) -> NDArray[np.uint32]:
    """The bits of entries over a power of two, as float32."""
    if held.dtype != np.float32:
        held = np.divide(held, scale, dtype=np.float64).astype(np.float32)
    return held.view(np.uint32)
