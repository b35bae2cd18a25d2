"""Linear algebra in float64 on a device; the results are numpy arrays.

A backend only computes. Scaling, checks and intervals are the same for all backends, so that a
faulty driver is caught just as a faulty library is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from rankscope.spectra.bounds import Values
from rankscope.spectra.symmetric import eigenvalues

ORDINARY = 200  # fourth powers of inverses as of entries are far within float64's ±1022
HeldT = TypeVar("HeldT")  # a matrix in float64 where the backend computes


@dataclass(frozen=True)
class Gram:
    """Trace, energy and eigenvalues of the Gram matrix G of a matrix's small side.

    Attributes
    ----------
    trace, energy
        tr G, which is not finite if an entry is not, and ‖G‖²_F.
    squares
        Eigenvalues, descending; None if the solver failed or was not called.
    """

    trace: float
    energy: float
    squares: Values | None


@dataclass(frozen=True)
class Inverse:
    """How nearly X is an inverse of R, where A = Q·R, and the Gram matrix of X.

    Attributes
    ----------
    gram
        That of X, shape (q, q).
    residual, energy
        ‖YᵀY − I‖_F and ‖Y‖²_F of the computed Y = A·X, where A has its long side first.
    """

    gram: Gram
    residual: float
    energy: float


@dataclass(frozen=True)
class Triangle:
    """Singular values, descending, and diagonal of the triangular factor R; ‖A‖²_F."""

    values: Values
    diagonal: Values
    energy: float


class Backend(Protocol[HeldT]):
    """What computes, on a processor or a GPU."""

    def in_range(self, values: NDArray[Any], *, is_ordinary: bool = False) -> tuple[HeldT, int]:
        """The entries in float64 divided by a power of two, and its exponent.

        Not of an empty matrix. Squares of float64 entries may leave its range; those of the
        narrower formats, which are then ``is_ordinary``, cannot.
        """

    def grams(self, matrices: Sequence[HeldT]) -> list[Gram]:
        """Gram matrices of matrices of one shape, (m, n) each."""

    def inverse(self, matrix: HeldT) -> Inverse | None:
        """An inverse of the triangular factor of a matrix; None if there is none."""

    def triangle(self, matrix: HeldT) -> Triangle | None:
        """QR of the long side and singular values of R, of a matrix; None if it fails."""


def scaling_exponent(largest: float) -> int:
    """Exponent of the power of two to divide entries up to ``largest`` by; 0 if not finite.

    Neither do squares of entries then leave the range of float64, nor fourth powers of ordinary
    ones, which are left as they are: no copy is made.
    """
    exponent = math.frexp(largest)[1] if math.isfinite(largest) else 0
    if abs(exponent) <= ORDINARY:
        return 0
    # Within ±1000, so that neither it nor its inverse leaves float64 for subnormal matrices.
    return min(max(exponent, -1000), 1000)


class NumpyBackend:
    """The processor, one matrix at a time."""

    def in_range(self, values: NDArray[Any], *, is_ordinary: bool = False) -> tuple[Values, int]:
        """The entries in float64 divided by a power of two, and its exponent."""
        if is_ordinary or values.dtype != np.float64:
            return np.asarray(values, np.float64), 0
        exponent = scaling_exponent(max(float(values.max()), -float(values.min())))
        return (values * math.ldexp(1.0, -exponent) if exponent else values), exponent

    def grams(self, matrices: Sequence[Values]) -> list[Gram]:
        """Gram matrices of float64 matrices of one shape."""
        return [self._gram(matrix) for matrix in matrices]

    def _gram(self, matrix: Values) -> Gram:
        wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
        with np.errstate(invalid="ignore", over="ignore"):
            gram = wide @ wide.T
            trace, energy = float(np.trace(gram)), float(np.vdot(gram, gram))
        if not np.isfinite(trace):
            return Gram(trace, energy, None)
        try:
            return Gram(trace, energy, eigenvalues(gram)[::-1])
        except np.linalg.LinAlgError:
            return Gram(trace, energy, None)

    def inverse(self, matrix: Values) -> Inverse | None:
        """An inverse of the triangular factor, which is the Cholesky factor of the Gram matrix."""
        from scipy.linalg.blas import dtrmm
        from scipy.linalg.lapack import dtrtri

        tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
        count = tall.shape[1]
        try:
            triangle = np.linalg.cholesky(tall.T @ tall).T
        except np.linalg.LinAlgError:
            return None
        inverse, failed = dtrtri(triangle, lower=0, overwrite_c=1)
        if failed:
            return None
        products = np.zeros((count, count))
        for start in range(0, len(tall), count):  # in blocks, so that no second A is in memory
            rows = dtrmm(1.0, inverse, tall[start : start + count].T, side=0, trans_a=1)
            products += rows @ rows.T
        energy = float(np.trace(products))
        products[np.diag_indices(count)] -= 1
        return Inverse(self._gram(inverse), float(np.linalg.norm(products)), energy)

    def triangle(self, matrix: Values) -> Triangle | None:
        """QR of the long side and singular values of R."""
        tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
        try:
            triangle = np.asarray(np.linalg.qr(tall, mode="r"))
            values = np.linalg.svd(triangle, compute_uv=False)
            energy = float(np.einsum("ij,ij->", tall, tall))
            return Triangle(values, np.diag(triangle), energy)
        except np.linalg.LinAlgError:
            return None


NUMPY = NumpyBackend()
