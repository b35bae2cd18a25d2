"""Singular values of float64 matrices to as many digits as asked for.

A float64 matrix is an integer matrix times a power of two, so products and Gram matrices are formed
without error, and the rank is an exact integer. Only the eigenvalues of the Gram matrix are
rounded, at a precision that is raised until the smallest nonzero one has the digits.
"""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
from numpy.typing import NDArray

Integers = NDArray[np.object_]

DIGITS = 40
PRIME = 2**521 - 1  # the rank modulo a prime this large is the rank


class Exact:
    """The matrix ``integers · 2**exponent``, shape (m, n)."""

    def __init__(self, integers: Integers, exponent: int) -> None:
        self.integers, self.exponent = integers, exponent

    @classmethod
    def of(cls, values: NDArray[Any]) -> Exact:
        """Take floating-point entries for what they are."""
        mantissas, exponents = np.frexp(np.asarray(values, np.float64))
        integers = np.ldexp(mantissas, 53).astype(np.int64).astype(object)
        exponents = exponents.astype(np.int64) - 53
        lowest = int(exponents[mantissas != 0].min(initial=2000))
        shifts = np.where(mantissas == 0, 0, exponents - lowest).astype(object)
        return cls(integers * 2**shifts, lowest)

    def __matmul__(self, other: Exact) -> Exact:
        return Exact(self.integers @ other.integers, self.exponent + other.exponent)

    @property
    def rank(self) -> int:
        """The rank, by elimination modulo a prime."""
        rows, rank = (self.integers % PRIME).tolist(), 0
        for column in range(self.integers.shape[1]):
            pivot = next((i for i in range(rank, len(rows)) if rows[i][column]), None)
            if pivot is None:
                continue
            rows[rank], rows[pivot] = rows[pivot], rows[rank]
            inverse = pow(rows[rank][column], -1, PRIME)
            for row in rows[rank + 1 :]:
                if row[column]:
                    factor = row[column] * inverse
                    row[column:] = [
                        (x - factor * y) % PRIME
                        for x, y in zip(row[column:], rows[rank][column:], strict=True)
                    ]
            rank += 1
        return rank

    def singular_values(self, *, digits: int = DIGITS) -> list[str]:
        """All min(m, n) of them, descending, as decimal strings; exact zeros are ``"0"``."""
        tall = (
            self.integers if self.integers.shape[0] >= self.integers.shape[1] else self.integers.T
        )
        gram, rank = tall.T @ tall, self.rank
        precision = 2 * digits
        while True:
            with mpmath.workdps(precision):
                squares = sorted(mpmath.eigsy(mpmath.matrix(gram.tolist()), eigvals_only=True))
                known = squares[::-1][:rank]
                # An eigenvalue errs by about 10**-precision of the largest.
                if not known or known[-1] > known[0] * mpmath.mpf(10) ** (digits + 5 - precision):
                    unit = mpmath.mpf(2) ** self.exponent
                    found = [mpmath.nstr(mpmath.sqrt(x) * unit, digits) for x in known]
                    return found + ["0"] * (len(gram) - rank)
            precision *= 2


def effective_rank(s: list[str]) -> mpmath.mpf:
    """Exponential of the entropy of singular values given as decimal strings."""
    with mpmath.workdps(DIGITS):
        values = [mpmath.mpf(x) for x in s if x != "0"]
        total = mpmath.fsum(values)
        return mpmath.exp(-mpmath.fsum(x / total * mpmath.log(x / total) for x in values))


def distance(found: float, true: str) -> mpmath.mpf:
    """|found − true| to all the digits that there are."""
    with mpmath.workdps(2 * DIGITS):
        return abs(mpmath.mpf(float(found)) - mpmath.mpf(true))


def is_inside(lower: float, true: str, upper: float) -> bool:
    """Whether the true value is in an interval, without rounding it first."""
    with mpmath.workdps(2 * DIGITS):
        return bool(mpmath.mpf(float(lower)) <= mpmath.mpf(true) <= mpmath.mpf(float(upper)))
