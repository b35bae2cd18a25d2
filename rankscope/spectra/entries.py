"""How unequal the entries of a matrix are: Gini coefficient and Hoyer's sparsity."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankscope.spectra.bounds import UNIT_ROUNDOFF, Values
from rankscope.spectra.spectrum import Sparsity

BLOCK = 2**15  # entries at a time, so that their float64 copy stays in the processor's cache
KNOWN_TO = 1e-6
LOWER_HALF, SIZE_BITS = 0xFFFF, 0x7FFF  # of a float32 that bfloat16 holds: zero; all but the sign
HISTOGRAM_FROM = 2**15  # entries from which counting 2¹⁵ values takes less time than sorting
COUNTED = 2**17  # entries at a time, as above


def sparsity(values: NDArray[Any], error: float = 0.0) -> Sparsity | None:
    """Gini coefficient and Hoyer's sparsity of the absolute values of all entries.

    With x the n absolute values in ascending order,

    - Gini: Σ(2i − n − 1)·xᵢ/(n·Σx), from 0 where all are equal to 1 − 1/n where one is not zero.
    - Hoyer: (√n − ‖x‖₁/‖x‖₂)/(√n − 1), from 0 to 1 in the same two cases.

    Parameters
    ----------
    values
        The matrix, shape ``(m, n)``.
    error
        Bound on the Frobenius norm of what forming it rounded.

    Returns
    -------
    Both numbers, each known to 1e-6. None where they are not, for a zero or an empty matrix, and
    where an entry is NaN or infinite. A single entry has a Gini coefficient of 0, and no Hoyer.

    Notes
    -----
    Changing the entries by E changes Gini by at most 2·‖E‖₁/‖x‖₁, since sorting brings no two
    vectors farther apart, and Hoyer by at most 7·√n·‖E‖_F/‖x‖₁, ‖E‖₁ ≤ √n·‖E‖_F. The sums, of n
    terms in float64, err by n·u.

    References
    ----------
    N. Hurley and S. Rickard, "Comparing measures of sparsity", IEEE Trans. Inf. Theory 55 (2009),
    4723.
    P. O. Hoyer, "Non-negative matrix factorization with sparseness constraints", JMLR 5 (2004),
    1457.
    """
    n = values.size
    if values.dtype == np.float32 and n >= HISTOGRAM_FROM:
        bits = values.ravel(order="K").view(np.uint32)
        if (occurs := _occurrences(bits)) is not None:
            return _of_counted(n, occurs, error)
    # One copy, sorted in place; numpy sorts float32 several times faster than float16.
    ordered = np.abs(values, dtype=np.result_type(values, np.float32)).ravel(order="K")
    ordered.sort()
    largest = float(ordered[-1]) if n else 0.0  # NaN is sorted to the end
    if not 0 < largest < math.inf:
        return None
    total = squares = weighted = 0.0
    places = np.arange(min(n, BLOCK), dtype=np.float64)
    for start, x in _blocks(ordered, largest):
        part = float(x.sum())
        total += part
        squares += float(x @ x)
        weighted += 2 * float(places[: x.size] @ x) + (2 * start + 1 - n) * part
    return from_sums(n, total, squares, weighted, error=error / largest)


def _occurrences(bits: NDArray[np.uint32]) -> NDArray[np.intp] | None:
    """How often each size that bfloat16 has occurs in float32 of these bits; None if others do."""
    occurs = np.zeros(SIZE_BITS + 1, np.intp)
    for start in range(0, bits.size, COUNTED):
        part = bits[start : start + COUNTED]
        if (part & LOWER_HALF).any():
            return None
        occurs += np.bincount((part >> 16) & SIZE_BITS, minlength=len(occurs))
    return occurs


def _of_counted(n: int, occurs: NDArray[np.intp], error: float) -> Sparsity | None:
    """As `sparsity`, of n entries: equal ones are neighbours in order, and are added as one."""
    (found,) = occurs.nonzero()
    x = (found.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    if not 0 < x[-1] < math.inf:  # the bits of NaN are above those of infinity
        return None
    largest, counts = float(x[-1]), occurs[found]
    x /= largest
    sums = counts * x
    weighted = float((2 * counts.cumsum() - counts - n) @ sums)
    return from_sums(n, float(sums.sum()), float(sums @ x), weighted, error=error / largest)


def from_sums(
    n: int, total: float, squares: float, weighted: float, *, error: float
) -> Sparsity | None:
    """Both numbers of n absolute values x divided by the largest: see `sparsity`.

    Parameters
    ----------
    total, squares, weighted
        Σx, Σx² and Σ(2i − n − 1)·xᵢ, xᵢ ascending.
    error
        As for `sparsity`, divided by the largest value too.
    """
    if 8 * (math.sqrt(n) * error + n * UNIT_ROUNDOFF * total) > KNOWN_TO * total:
        return None
    root = math.sqrt(n)
    hoyer = None if n == 1 else (root - total / math.sqrt(squares)) / (root - 1)
    return Sparsity(max(weighted / (n * total), 0.0), hoyer and min(max(hoyer, 0.0), 1.0))


def _blocks(ordered: NDArray[Any], unit: float) -> Iterator[tuple[int, Values]]:
    """Pieces of a vector divided by a number, in float64, each with the place where it begins."""
    for start in range(0, ordered.size, BLOCK):
        yield start, np.divide(ordered[start : start + BLOCK], unit, dtype=np.float64)
