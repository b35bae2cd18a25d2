"""How far computed singular values can be from the true ones.

Legend: A is m×n, M = max(m, n), q = min(m, n); s₁ its largest singular value; u = 2⁻⁵³.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

UNIT_ROUNDOFF = 2.0**-53


class Within(NamedTuple):
    """Intervals that follow from the computed values: |ŝ² − s²| ≤ ``square``, then ± ``absolute``.

    Attributes
    ----------
    absolute
        In the units of the matrix.
    square
        In units of 4ᵏ, where 2ᵏ is the power of two above the largest value: squares of values in
        the units of the matrix may leave the range of float64.
    """

    absolute: float
    square: float = 0.0

    @classmethod
    def of_squares(cls, bound: float, largest: float) -> Within:
        """Intervals of values, the first being ``largest``, whose squares are off by a bound."""
        return cls(0.0, math.ldexp(bound, -2 * math.frexp(largest)[1]))

    def widened(self, error: float) -> Within:
        """The same intervals for values that may be off by ``error`` more."""
        return Within(self.absolute + error, self.square)

    def ends(self, values: Values) -> tuple[Values, Values]:
        """Lower and upper ends for these values, which descend."""
        lower, upper = values, values
        if self.square and values.size:
            unit = math.frexp(float(values[0]))[1]
            squares = np.ldexp(values, -unit) ** 2
            lower = np.ldexp(np.sqrt(np.maximum(squares - self.square, 0)), unit)
            with np.errstate(over="ignore"):  # an upper end may be infinite
                upper = np.ldexp(np.sqrt(squares + self.square), unit)
        return _apart(lower, upper, self.absolute)


class Ends(NamedTuple):
    """Intervals that do not follow from the values, one by one."""

    lower: Values
    upper: Values

    def widened(self, error: float) -> Ends:
        """The same intervals for values that may be off by ``error`` more."""
        return Ends(*_apart(self.lower, self.upper, error))

    def ends(self, values: Values) -> Ends:
        """Lower and upper ends, whatever the values."""
        return self


def _apart(lower: Values, upper: Values, error: float) -> tuple[Values, Values]:
    """Ends that are moved apart; outward, so that no rounding makes an interval too narrow."""
    if error:
        with np.errstate(over="ignore"):  # an upper end may be infinite
            lower = np.nextafter(lower - error, -np.inf)
            upper = np.nextafter(upper + error, np.inf)
    return np.maximum(lower, 0), upper


def gram_bound(trace: float, largest: float, *, long_side: int, short_side: int) -> float:
    """Bound δ on |ŝ² − s²| for ŝ = √λ̂ of every eigenvalue λ̂ of the float64 Gram matrix.

    Forming AᵀA errs by at most M·u·‖A‖²_F = M·u·trace in any order of summation; the eigenvalue
    solver is backward stable, with 8q·u·λ₁ taken for its error; the root, its square and the ends
    of the interval round by 6u·λ₁, counted as 8. By Weyl's inequality these add up, for each
    eigenvalue alike.
    """
    return UNIT_ROUNDOFF * (long_side * trace + 8 * (short_side + 1) * largest)


def inverse_bound(
    residual: float, energy: float, norms: float, *, long_side: int, short_side: int
) -> float:
    """Bound ε such that s(A), in reverse order, is within (1 ± ε)/s(X), for any matrix X.

    Parameters
    ----------
    residual, energy
        ‖YᵀY − I‖_F and ‖Y‖²_F of the computed Y = A·X, A with its long side first.
    norms
        ‖A‖_F·‖X‖_F.

    Notes
    -----
    Forming A·X errs by at most q·u·‖A‖_F·‖X‖_F, and YᵀY by M·u·‖Y‖²_F, in any order of summation.
    So no singular value of A·X is further from 1 than the sum ε of these and the residual, and
    A = (A·X)·X⁻¹. One u more in each is for terms of second order; the last line is for the
    rounding of the sums and of the ends of the intervals.
    """
    size = long_side * short_side
    formed = (short_side + 1) * UNIT_ROUNDOFF * norms
    squared = (long_side + 1) * UNIT_ROUNDOFF * energy
    return (residual + squared + formed) * (1 + (size + 16) * UNIT_ROUNDOFF) + 8 * UNIT_ROUNDOFF


def svd_bound(largest: float, *, long_side: int) -> float:
    """Bound on the error of a singular value from QR and a float64 SVD: 2(M + 8)·u·s₁.

    The 8 is for matrices of a few rows, where errors above 2M·u·s₁ have been observed.
    """
    return 2 * (long_side + 8) * UNIT_ROUNDOFF * largest


def product_bound(
    left_norm: float, right_norm: float, shape: tuple[int, int], *, inner: int
) -> float:
    """Bound on the error of a singular value of L·R: 2(m + n + r)·u·‖L‖_F·‖R‖_F, r the inner side.

    It is relative to the factors, not to the product: where the terms of a sum of merges nearly
    cancel, the product is small and its error is not.
    """
    return 2 * (sum(shape) + inner) * UNIT_ROUNDOFF * left_norm * right_norm


def multiplying_bound(left_norm: float, right_norm: float, *, inner: int) -> float:
    """Bound on ‖fl(L·R) − L·R‖_F for float64 factors: (r + 1)·u·‖L‖_F·‖R‖_F.

    r·u for inner products in any order of summation, and u for a scale that L was multiplied by.
    """
    return (inner + 1) * UNIT_ROUNDOFF * left_norm * right_norm


def frobenius_bound(norm: float, entries: int) -> float:
    """Bound on the error of ‖A‖_F from float64 squares, summed in any order: (mn/2 + 4)·u·‖A‖_F."""
    return (entries / 2 + 4) * UNIT_ROUNDOFF * norm


def agree(computed: float, expected: float, size: int) -> bool:
    """Whether two sums that are equal in exact arithmetic are equal up to rounding.

    Both the trace and the Frobenius norm are checked: a solver that returns the diagonal as
    eigenvalues, as one GPU library did, passes the first check and fails the second.
    """
    return bool(abs(computed - expected) <= 64 * size * UNIT_ROUNDOFF * abs(expected))


def is_resolved(values: Values, lower: Values, upper: Values, noise_floor: float) -> bool:
    """Whether every value is certainly above the noise floor and known to 1 %, or below it."""
    above = lower > noise_floor
    unclear = ~above & (upper > noise_floor)
    vague = above & (upper - lower > 0.01 * values)
    return not bool((unclear | vague).any())
