"""What the rounding of a matrix adds to the inner product of the changes before and after it.

Of three states Q₀, Q₁, Q₂ of a matrix, each rounded to nearest, both changes Q₁ − Q₀ and Q₂ − Q₁
contain the rounding of Q₁, with opposite signs. So even changes that have nothing to do with each
other have a negative inner product.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numpy.typing import NDArray

from rankscope.spectra.bounds import Values
from rankscope.spectra.formats import Format
from rankscope.spectra.matrices import Matrix
from rankscope.spectra.rounding import spacings

# Below, a Gaussian of this deviation stays within ±1; the series needs more terms there.
NARROW = 0.15
BLOCK = 2**16  # entries at a time, so that they stay in the processor's cache
RANGE = 1200  # no spacing of a format is above 2**RANGE or below its inverse
TERMS = np.arange(1, 10)[:, None]


def shared_rounding(
    before: Matrix | None,
    shared: Matrix,
    after: Matrix | None,
    stored: Format,
    weights: NDArray[np.float64] | None = None,
) -> float:
    """Mean of ⟨Q₁ − Q₀, Q₂ − Q₁⟩ for independent changes as large as those found.

    Parameters
    ----------
    before, shared, after
        The states Q₀, Q₁, Q₂, shape ``(m, n)``; None for zeros.
    stored
        The format that all of them were rounded to.
    weights
        A factor for each term of the sum, which broadcasts to ``(m, n)``; 1 by default.

    Returns
    -------
    Zero where either change is zero everywhere, otherwise negative. −Σ ulp²/12 where all entries
    move by much more than the spacing ulp of the format; less where they move by less.

    Notes
    -----
    For a change d of an entry whose place within the spacing is random, the mean of the squared
    rounded change is ulp²·(a² + f(1 − f)), a = |d|/ulp and f its fraction. As 2·(Q₁ − Q₀)(Q₂ − Q₁)
    = (Q₂ − Q₀)² − (Q₁ − Q₀)² − (Q₂ − Q₁)², the mean for independent Gaussian changes of deviations
    a, b (in ulp) is

        ulp²/2 · [G(√(a² + b²)) − G(a) − G(b)],   G(a) = E f(1 − f) = 1/6 − Σₙ exp(−2π²n²a²)/(π²n²)

    G tends to 1/6, hence −ulp²/12; for small a it is a·√(2/π), so that the cosine of two equally
    small changes tends to 1/√2 − 1 = −0.29. The deviations are those of all entries with the same
    ulp, from the mean of their squared changes, a² + G(a).
    """
    classes = 2 * RANGE
    count, squares = np.zeros(classes), np.zeros((2, classes))
    weight = count if weights is None else np.zeros(classes)
    rows = max(1, BLOCK // max(shared.shape[1], 1))
    for part in (slice(start, start + rows) for start in range(0, len(shared), rows)):
        places = (spacings(shared[part], stored) + RANGE).ravel()
        count += np.bincount(places, minlength=classes)
        if weights is not None:
            spread = np.broadcast_to(weights, shared.shape)[part].ravel()
            weight += np.bincount(places, spread, minlength=classes)
        for found, other in zip(squares, (before, after), strict=True):
            change = shared[part] if other is None else shared[part] - other[part]
            found += np.bincount(places, np.square(change, dtype=np.float64).ravel(), classes)
    return of_classes(count, weight, squares)


@np.errstate(over="ignore", under="ignore")
def of_classes(count: Values, weight: Values, squares: Values) -> float:
    """`shared_rounding` of entries that are counted by their spacing.

    Parameters
    ----------
    count, weight
        Number of entries, and sum of their factors; element i is of spacing 2**(i − `RANGE`).
    squares
        Sums of the squares of both changes, shape ``(2, len(count))``.
    """
    there = np.flatnonzero(count)
    spacing = np.ldexp(1.0, there - RANGE)
    one, other = (_deviation(found[there] / count[there] / spacing**2) for found in squares)
    means = (_mean(np.hypot(one, other)) - _mean(one) - _mean(other)) / 2
    return float((spacing**2 * weight[there] * means).sum())


def _mean(deviation: Values) -> Values:
    """G: the mean of f(1 − f), f the fraction of |a| for a Gaussian a of this deviation."""
    narrow = deviation * math.sqrt(2 / math.pi) - deviation**2
    with np.errstate(over="ignore", under="ignore"):
        series = np.exp(-2 * (math.pi * TERMS * deviation) ** 2) / (math.pi * TERMS) ** 2
    return np.where(deviation < NARROW, narrow, 1 / 6 - series.sum(axis=0))


def _deviation(square: Values) -> Values:
    """The deviation a with a² + G(a) equal to this mean square."""
    narrow = square * math.sqrt(math.pi / 2)
    wide = np.sqrt(np.maximum(square - 1 / 6, 0))
    between = np.interp(square, *_table())
    return np.where(narrow < NARROW, narrow, np.where(square > 1 + 1 / 6, wide, between))


@cache
def _table() -> tuple[Values, Values]:
    """Mean squares, and the deviations that give them, where neither limit holds."""
    deviations = np.geomspace(NARROW, 1, 1000)
    return deviations**2 + _mean(deviations), deviations
