"""Matrices of rational numbers, and their singular values to many digits: the oracle of composites.

Shares nothing with the package. A stored number is a fraction, so sums and products of stored
matrices are formed without error; only the eigenvalues of the Gram matrix are rounded, at a
precision that leaves every singular value above 1e-60 of the largest 20 digits or more.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
from numpy.typing import NDArray

Rational = NDArray[np.object_]
DIGITS = 160


def exact(values: NDArray[Any]) -> Rational:
    """Every entry as the fraction that it is."""
    flat = [Fraction(float(value)) for value in np.asarray(values, np.float64).ravel()]
    return np.array(flat, dtype=object).reshape(values.shape)


def singular_values(matrix: Rational) -> list[mpmath.mpf]:
    """All min(m, n) of them, descending."""
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    gram = tall.T @ tall
    with mpmath.workdps(DIGITS):
        entries = [[mpmath.mpf(x.numerator) / x.denominator for x in row] for row in gram.tolist()]
        squares = mpmath.eigsy(mpmath.matrix(entries), eigvals_only=True)
        return sorted((mpmath.sqrt(max(x, mpmath.mpf(0))) for x in squares), reverse=True)


def effective_rank(s: list[mpmath.mpf]) -> mpmath.mpf:
    """Exponential of the entropy."""
    with mpmath.workdps(DIGITS):
        total = mpmath.fsum(s)
        p = [x / total for x in s if x > 0]
        return mpmath.exp(-mpmath.fsum(x * mpmath.log(x) for x in p))


def frobenius(matrix: Rational) -> mpmath.mpf:
    """√Σ of the squares."""
    total = sum((x * x for x in matrix.ravel().tolist()), Fraction(0))
    with mpmath.workdps(DIGITS):
        return mpmath.sqrt(mpmath.mpf(total.numerator) / total.denominator)


def misses(lower: NDArray[Any], upper: NDArray[Any], true: list[mpmath.mpf]) -> list[float]:
    """Distances of true values from their intervals, in half widths, where they are outside.

    Singular values past the given intervals have to be zero, up to the digits of the oracle.
    """
    found = []
    with mpmath.workdps(DIGITS):
        for low, high, s in zip(lower.tolist(), upper.tolist(), true, strict=False):
            beyond = max(mpmath.mpf(low) - s, s - mpmath.mpf(high))
            if beyond > 0:
                found.append(float(beyond / max(mpmath.mpf(high) - low, mpmath.mpf(5e-324)) * 2))
        tiny = true[0] * mpmath.mpf(10) ** (-DIGITS // 2 + 5)
        found += [float("inf") for s in true[len(lower) :] if s > tiny]
    return found
