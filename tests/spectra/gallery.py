"""Matrices that are hard for one route or another, by name, in any tall shape.

Legend: m×n with m ≥ n; k = n/4 is the rank of the deficient ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rankscope.spectra.matrices import Dense, LowRank
from rankscope.spectra.rounding import rounding_of

Matrix = NDArray[np.float64]
HELD = {"float64": np.float64, "float32": np.float32, "float16": np.float16}


class Stored(NamedTuple):
    """Entries as float64, each of them exact in the format that ``dtype`` names."""

    values: Matrix
    dtype: str = "float64"

    def dense(self) -> Dense:
        """What the package is given: entries of this format, however few bits they need."""
        held = self.values.astype(HELD.get(self.dtype, np.float32))
        return Dense(held, self.dtype, rounding_of(held, self.dtype))


def rounded(values: ArrayLike, dtype: str) -> Stored:
    """Round to nearest, ties to even, in the format named ``dtype``."""
    values = np.asarray(values, np.float64)
    if dtype == "bfloat16":
        bits = values.astype(np.float32).view(np.uint32)
        bits = (bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF0000
        return Stored(bits.astype(np.uint32).view(np.float32).astype(np.float64), dtype)
    return Stored(values.astype(HELD[dtype]).astype(np.float64), dtype)


class Maker:
    """Constructions in one shape, from one seed."""

    def __init__(self, m: int, n: int, seed: int = 2307) -> None:
        self.m, self.n, self.k = m, n, max(n // 4, 1)
        self.rng = np.random.default_rng(seed)

    def normal(self, *shape: int) -> Matrix:
        """Gaussian entries; m×n by default."""
        return self.rng.normal(size=shape or (self.m, self.n))

    def orthogonal(self, rows: int, columns: int) -> Matrix:
        """Orthonormal columns."""
        return np.asarray(np.linalg.qr(self.normal(rows, columns))[0])

    def rotated(self, s: ArrayLike, m: int = 0) -> Matrix:
        """Singular values as given, up to rounding, between random orthogonal factors."""
        s = np.asarray(s, np.float64)
        return self.orthogonal(m or self.m, s.size) * s @ self.orthogonal(s.size, s.size).T

    def update(self) -> Matrix:
        """B·A of inner dimension k, as large as an adapter's."""
        return 0.02 * self.normal(self.m, self.k) @ self.normal(self.k, self.n) / np.sqrt(self.n)

    def hilbert(self) -> Matrix:
        """1/(i + j − 1)."""
        return 1 / (np.arange(self.m)[:, None] + np.arange(1.0, self.n + 1))

    def spread(self, smallest: float, largest: float = 1.0) -> Matrix:
        """Factors for n columns, from the largest to the smallest."""
        return np.geomspace(largest, smallest, self.n)

    def kahan(self) -> Matrix:
        """Triangular and n×n: its smallest singular value shows in no entry."""
        sine, cosine = np.sin(1.2), np.cos(1.2)
        triangle = np.eye(self.n) - cosine * np.triu(np.ones((self.n, self.n)), 1)
        return sine ** np.arange(self.n)[:, None] * triangle


def constructions(m: int, n: int) -> dict[str, Callable[[], Stored | Matrix]]:
    """How each matrix of the gallery is made; float64 unless it says otherwise."""
    make = Maker(m, n)
    integers, half = make.rng.integers, n // 2
    one_in_two = np.where(np.arange(n) % 2, 1e-150, 1e150)
    outlier = np.where(np.arange(n) == 3, 300.0, 1.0)
    at_the_floor = [4.2, 1.7]  # in units of the error of QR and SVD, 2m·u·s₁
    return {
        "random": make.normal,
        "random, bf16": lambda: rounded(make.normal(), "bfloat16"),
        "random square, fp32": lambda: rounded(make.normal(n, n), "float32"),
        "orthogonal": lambda: make.orthogonal(m, n),
        "exact rank n/4, integers": lambda: (
            integers(-4, 5, (m, make.k)) @ integers(-4, 5, (make.k, n))
        ).astype(np.float64),
        "geometric 1..1e-6": lambda: make.rotated(make.spread(1e-6)),
        "graded 1..1e-16, rotated": lambda: make.rotated(make.spread(1e-16)),
        "graded 1..1e-16 by columns": lambda: make.normal() * make.spread(1e-16),
        "Hilbert": make.hilbert,
        "product of inner n/4, fp64": make.update,
        "product of inner n/4, fp32": lambda: rounded(make.update(), "float32"),
        "product of inner n/4, fp16": lambda: rounded(make.update(), "float16"),
        "product of inner n/4, bf16": lambda: rounded(make.update(), "bfloat16"),
        "ones": lambda: np.ones((m, n)),
        "entries 1e180": lambda: 1e180 * make.normal(),
        "entries 1e-180": lambda: 1e-180 * make.normal(),
        "subnormal entries": lambda: integers(-9, 10, (m, n)) * 5e-324,
        "two values, n/2 times each": lambda: make.rotated(np.repeat([3.0, 1.0], [half, n - half])),
        "two clusters": lambda: make.rotated(
            np.r_[1 + 1e-13 * np.arange(half), 1e-5 * (1 + 1e-9 * np.arange(n - half))]
        ),
        "one huge row": lambda: make.normal() * np.where(np.arange(m) == 5, 1e12, 1.0)[:, None],
        "outlier column, bf16": lambda: rounded(make.normal() * outlier, "bfloat16"),
        "columns 1e150 and 1e-150": lambda: make.normal() * one_in_two,
        "Jordan-like": lambda: np.eye(n) / 2 + np.eye(n, k=1),
        "Kahan": make.kahan,
        "Vandermonde": lambda: np.vander(np.linspace(-1, 1, m), n),
        "powers of two on the diagonal": lambda: np.diag(np.ldexp(1.0, -3 * np.arange(n))),
        "zero row": lambda: make.normal(n, n) * np.arange(n)[:, None],
        "near the floor of the arithmetic": lambda: make.rotated(
            np.r_[np.linspace(1, 0.5, n - 2), np.multiply(at_the_floor, 2 * m * 2.0**-53)]
        ),
    }


def dense_gallery(m: int, n: int) -> dict[str, Stored]:
    """Every dense matrix by name."""
    made = {name: make() for name, make in constructions(m, n).items()}
    return {
        name: one if isinstance(one, Stored) else Stored(np.asarray(one, np.float64))
        for name, one in made.items()
    }


def product_gallery(m: int, n: int) -> dict[str, LowRank]:
    """Products given by their factors, of inner dimension k or 2k."""
    make = Maker(m, n)
    k = make.k
    steep = np.geomspace(1, 1e-12, k)

    def factors(s: ArrayLike = 1.0, t: ArrayLike = 1.0) -> LowRank:
        left = make.normal(m, k) * np.asarray(s)
        return LowRank(left, np.atleast_2d(t).T * make.normal(k, n))

    def ill() -> Matrix:
        return make.rotated(np.geomspace(1, 1e-6, k))

    def sum_with(scale: float) -> LowRank:
        left, right = make.normal(m, k), make.normal(k, n)
        other = -left + scale * make.normal(m, k)
        return LowRank(np.hstack([left, other]), np.vstack([right, right]))

    return {
        "gaussian factors": factors(),
        "left of condition 1e6": LowRank(ill(), make.normal(k, n)),
        "both of condition 1e6": LowRank(ill(), make.rotated(np.geomspace(1, 1e-6, k), n).T),
        "left graded 1..1e-12": factors(steep),
        "graded against each other": factors(steep, steep[::-1]),
        "left tiny": factors(1e-200),
        "left huge, right tiny": factors(1e250, 1e-250),
        "two terms, sum 1e-6": sum_with(1e-6),
        "two terms, sum 1e-12": sum_with(1e-12),
        "two terms that cancel": sum_with(0.0),
        "inner dimension larger than both sides": LowRank(make.normal(6, 40), make.normal(40, 8)),
        "one dimension": LowRank(make.normal(m, 1), make.normal(1, n)),
    }
