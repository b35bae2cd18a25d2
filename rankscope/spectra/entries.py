"""How unequal the entries of a matrix are: Gini coefficient and Hoyer's sparsity."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankscope.spectra.bounds import UNIT_ROUNDOFF, Values
from rankscope.spectra.counted_entries import Sums, counted_sums
from rankscope.spectra.spectrum import Sparsity

BLOCK = 2**15  # entries at a time, so that their float64 copy stays in the processor's cache
KNOWN_TO = 1e-6
COUNTING_FROM = 2**15  # entries from which counting takes less time than sorting


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
        Bound on the Frobenius norm of the rounding error in forming it.

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
    sums = counted_sums(values) if values.size >= COUNTING_FROM else None
    counted = None if sums is None else from_sums(values.size, sums, error)
    if counted is not None:
        return counted
    sums = _sorted_sums(values)
    return None if sums is None else from_sums(values.size, sums, error)


def _sorted_sums(values: NDArray[Any]) -> Sums | None:
    """Sort the entries; None if all are zero, or one is NaN or infinite."""
    # One copy, sorted in place; numpy sorts float32 several times faster than float16.
    n, ordered = values.size, np.abs(values, dtype=np.result_type(values, np.float32))
    ordered = ordered.ravel(order="K")
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
    return Sums(largest, total, squares, weighted)


def from_sums(n: int, sums: Sums, error: float) -> Sparsity | None:
    """Both numbers of n absolute values, None unless they are known: see `sparsity`."""
    root, total = math.sqrt(n), sums.total
    rounded = 8 * (root * error / sums.unit + n * UNIT_ROUNDOFF * total)
    # Hoyer is off by half the relative error of Σx², times √n/(√n − 1); both by two of each entry.
    unknown = max(sums.weighted_error / n, total * sums.squares_error / sums.squares)
    if rounded + unknown + 4 * sums.relative * total > KNOWN_TO * total:
        return None
    hoyer = None if n == 1 else (root - total / math.sqrt(sums.squares)) / (root - 1)
    gini = max(sums.weighted / (n * total), 0.0)
    return Sparsity(gini, hoyer and min(max(hoyer, 0.0), 1.0))


def _blocks(ordered: NDArray[Any], unit: float) -> Iterator[tuple[int, Values]]:
    """Pieces of a vector divided by a number, in float64, each with the place where it begins."""
    for start in range(0, ordered.size, BLOCK):
        yield start, np.divide(ordered[start : start + BLOCK], unit, dtype=np.float64)
