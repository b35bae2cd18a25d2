"""Singular vectors with certificates: leading subspaces, and how far off they can be.

Legend: A is m×n, q = min(m, n); s₁ ≥ s₂ ≥ … its singular values; U and V its left and right
singular vectors; the short side is the one of q dimensions. A subspace is only as certain as its
gap: with Û, V̂ the computed leading k vectors, ρ = max(‖A V̂ − Û Ŝ‖, ‖Aᵀ Û − V̂ Ŝ‖) and the gap
s_k − s_{k+1}, the largest angle θ between the computed and the true subspaces obeys

    sin θ ≤ ρ / (gap − ρ).

P.-Å. Wedin, "Perturbation bounds in connection with singular value decomposition", BIT 12 (1972),
99. Single vectors within a cluster of equal values are not even defined, which is why no vector is
compared with the vector of the same index.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankscope.spectra.backends import NUMPY
from rankscope.spectra.bounds import (
    UNIT_ROUNDOFF,
    Values,
    Within,
    gram_bound,
    product_bound,
)
from rankscope.spectra.matrices import Decomposable, Dense, LowRank


@dataclass(frozen=True)
class Complete:
    """All singular vectors of the short side of a dense matrix, and the matrix itself.

    Attributes
    ----------
    stored
        The matrix as it was given; (m, n). Its copy in float64 is made when it is needed.
    vectors
        Eigenvectors of ``wide @ wide.T`` by descending eigenvalue; (q, q).
    bound
        Bound on the error of that Gram matrix and its eigenvalues, from `gram_bound`.
    """

    stored: NDArray[Any]
    vectors: Values
    bound: float

    @property
    def is_left_short(self) -> bool:
        """Whether the vectors are left ones."""
        rows, columns = self.stored.shape
        return bool(rows <= columns)

    @property
    def matrix(self) -> Values:
        """The matrix in units of a power of two, in which its entries are ordinary numbers."""
        return NUMPY.in_range(self.stored)[0]

    @property
    def wide(self) -> Values:
        """That matrix, turned so that its short side comes first; (q, M)."""
        return self.matrix if self.is_left_short else self.matrix.T


@dataclass(frozen=True)
class Basis:
    """Singular values of a matrix and its leading singular vectors.

    Attributes
    ----------
    shape
        Rows and columns, (m, n).
    exponent
        All that scales with the matrix is in units of 2**exponent, in which its entries are
        ordinary numbers: fourth powers of the values are in range. This holds for the matrix,
        the bound of its Gram matrix, the values, the residuals and the noise floor.
    values, lower, upper
        Singular values, descending, and intervals that contain the true ones; (q,), or (r,) for a
        product of inner dimension r, whose others are exactly zero.
    left, right
        The leading K singular vectors of each side, orthonormal up to rounding; (m, K) and (n, K).
    residuals
        The larger norm of A v − s u and Aᵀ u − s v of each of the K pairs, with all rounding; (K,).
    defect
        How far both sets of vectors are from orthonormal, in the spectral norm.
    noise_floor
        How much rounding to the storage format may have changed A, in the spectral norm.
    complete
        All vectors of the short side; only for a dense matrix.
    """

    shape: tuple[int, int]
    values: Values
    lower: Values
    upper: Values
    left: Values
    right: Values
    residuals: Values
    defect: float
    noise_floor: float
    complete: Complete | None = None
    exponent: int = 0

    @property
    def matrix(self) -> Values:
        """A itself, in units of 2**exponent; only for a dense matrix."""
        if self.complete is None:
            raise ValueError("a product is not kept multiplied out")
        return self.complete.matrix

    @property
    def count(self) -> int:
        """K, the number of vectors of each side."""
        return int(self.left.shape[1])

    def gap(self, k: int) -> float:
        """Lower bound on s_k − s_{k+1}: where it is not positive, no subspace is certain."""
        following = float(self.upper[k]) if k < len(self.upper) else 0.0
        return float(self.lower[k - 1]) - following

    def residual(self, k: int) -> float:
        """Bound on ρ of the leading k vectors together."""
        return float(np.sqrt((self.residuals[:k] ** 2).sum()))

    def error(self, k: int) -> float:
        """Bound on the sine of the angle by which the arithmetic moved the leading subspaces.

        Infinite where the gap is too small.
        """
        return sine(self.residual(k), self.gap(k)) + self.defect

    def noise(self, k: int) -> float:
        """The same bound for rounding to the storage format; infinite likewise."""
        return sine(self.noise_floor, self.gap(k))

    def is_resolved(self, k: int) -> bool:
        """Whether the gap exceeds anything that rounding may have caused."""
        return self.gap(k) > max(self.noise_floor, self.residual(k))


def basis_of(matrix: Decomposable, count: int) -> Basis | None:
    """Return the leading singular subspaces of a matrix or of a product given by its factors.

    Parameters
    ----------
    matrix
        `Dense` or a single `LowRank`.
    count
        Largest number of vectors of each side.

    Returns
    -------
    None if an entry is not finite, a side is empty, the matrix is zero, or the solver failed.
    """
    if isinstance(matrix, LowRank):
        if matrix.inner < min(matrix.shape):
            return _of_product(matrix, count)
        with np.errstate(over="ignore", invalid="ignore"):
            matrix = matrix.dense()
    return _of_dense(matrix, count) if isinstance(matrix, Dense) else None


def _of_dense(matrix: Dense, count: int) -> Basis | None:
    if 0 in matrix.shape or not np.isfinite(matrix.values).all():
        return None
    values, exponent = NUMPY.in_range(matrix.values)
    error, floor = (math.ldexp(x, -exponent) for x in (matrix.error, matrix.rounding.floor))
    is_left_short = values.shape[0] <= values.shape[1]
    wide = values if is_left_short else values.T
    found = _short_side(wide)
    if found is None:
        return None
    s, vectors, bound = found
    lower, upper = Within.of_squares(bound, float(s[0])).widened(error).ends(s)
    # Below the bound on the values, the long side would be divided by noise.
    count = min(count, int((lower > 0).sum()))
    if not count:
        return None
    short = np.ascontiguousarray(vectors[:, :count])
    long, _ = np.linalg.qr(wide.T @ short)
    long *= np.where(np.einsum("ij,ij->j", long, wide.T @ short) < 0, -1.0, 1.0)
    defect = _defect(short) + _defect(long)
    residuals = _residuals(wide, short, s[:count], long) + error + float(s[0]) * defect
    left, right = (short, long) if is_left_short else (long, short)
    return Basis(
        matrix.shape, s, lower, upper, left, right, residuals, defect, floor,
        Complete(matrix.values, vectors, bound), exponent,
    )  # fmt: skip


def _short_side(wide: Values) -> tuple[Values, Values, float] | None:
    """Singular values, all vectors of the short side, and the bound on the squares of the values.

    None if the matrix is zero or the solver failed.
    """
    trace = float(np.vdot(wide, wide))
    try:
        squares, vectors = np.linalg.eigh(wide @ wide.T)
    except np.linalg.LinAlgError:
        return None
    squares, vectors = squares[::-1], vectors[:, ::-1]
    if not squares[0] > 0:
        return None
    bound = gram_bound(trace, float(squares[0]), long_side=wide.shape[1], short_side=wide.shape[0])
    return np.sqrt(np.maximum(squares, 0)), vectors, bound


def _residuals(wide: Values, short: Values, s: Values, long: Values) -> Values:
    """Norms of the columns of both residuals, the larger of each pair, with their own rounding."""
    forward = wide @ long - short * s
    backward = wide.T @ short - long * s
    rounding = (max(wide.shape) + 2) * UNIT_ROUNDOFF * float(np.linalg.norm(wide))
    found = np.maximum(np.linalg.norm(forward, axis=0), np.linalg.norm(backward, axis=0))
    return np.asarray(found + rounding, np.float64)


def _of_product(matrix: LowRank, count: int) -> Basis | None:
    """By QR of both factors and an SVD of the small core, like the values."""
    if 0 in matrix.shape or matrix.inner == 0 or matrix.left.ndim == 3:
        return None
    if not (np.isfinite(matrix.left).all() and np.isfinite(matrix.right).all()):
        return None
    (left, left_exponent), (right, right_exponent) = map(
        NUMPY.in_range, (matrix.left, matrix.right)
    )
    exponent = left_exponent + right_exponent
    left_q, left_r = np.linalg.qr(left)
    right_q, right_r = np.linalg.qr(right.T)
    try:
        u, s, vt = np.linalg.svd(left_r @ right_r.T)
    except np.linalg.LinAlgError:
        return None
    if not s[0] > 0:
        return None
    error, floor = (float(np.ldexp(x, -exponent)) for x in (matrix.error, matrix.floor))
    bound = error + product_bound(
        float(np.linalg.norm(left)),
        float(np.linalg.norm(right)),
        matrix.shape,
        inner=matrix.inner,
    )
    lower, upper = np.maximum(s - bound, 0), s + bound
    count = min(count, int((lower > 0).sum()))
    if not count:
        return None
    a, b = left_q @ u[:, :count], right_q @ vt[:count].T
    defect = _defect(a) + _defect(b)
    residuals = np.full(count, bound + float(s[0]) * defect)
    return Basis(matrix.shape, s, lower, upper, a, b, residuals, defect, floor, None, exponent)


def _defect(vectors: Values) -> float:
    """Bound on ‖QᵀQ − I‖ of the computed vectors, with the rounding of forming it."""
    k = vectors.shape[1]
    found = float(np.linalg.norm(vectors.T @ vectors - np.eye(k)))
    return float(found + (len(vectors) + 2) * UNIT_ROUNDOFF * k)


def sine(perturbation: float, gap: float) -> float:
    """Bound on the sine of an angle; infinite where the gap is too small."""
    return perturbation / (gap - perturbation) if gap > perturbation else math.inf
