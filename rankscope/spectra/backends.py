"""Linear algebra in float64 on one device or another; what it finds comes back as numpy.

A backend only computes. Scaling, checks and intervals are the same for all of them, so that a
faulty driver is caught like a faulty library.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rankscope.spectra.bounds import Values


@dataclass(frozen=True)
class Gram:
    """What is needed of the Gram matrix G of a matrix's small side.

    Attributes
    ----------
    trace, energy
        tr G, which is not finite where an entry is not, and ‖G‖²_F.
    squares
        Eigenvalues, descending; None if the solver failed or was not asked.
    """

    trace: float
    energy: float
    squares: Values | None


@dataclass(frozen=True)
class Triangle:
    """Singular values, descending, and diagonal of the triangular factor R; None if it failed."""

    values: Values
    diagonal: Values


class Backend(Protocol):
    """A place to compute."""

    def grams(self, matrices: Sequence[Values]) -> list[Gram]:
        """Gram matrices of float64 matrices of one shape, (m, n) each."""

    def triangle(self, matrix: Values) -> Triangle | None:
        """QR of the long side and singular values of R, for one float64 matrix."""


class NumpyBackend:
    """The processor, one matrix at a time."""

    def grams(self, matrices: Sequence[Values]) -> list[Gram]:
        """Gram matrices of float64 matrices of one shape."""
        return [self._gram(matrix) for matrix in matrices]

    def _gram(self, matrix: Values) -> Gram:
        wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
        with np.errstate(invalid="ignore", over="ignore"):
            gram = wide @ wide.T
            trace, energy = float(np.trace(gram)), float(np.einsum("ij,ij->", gram, gram))
        if not np.isfinite(trace):
            return Gram(trace, energy, None)
        try:
            return Gram(trace, energy, np.asarray(np.linalg.eigvalsh(gram)[::-1], np.float64))
        except np.linalg.LinAlgError:
            return Gram(trace, energy, None)

    def triangle(self, matrix: Values) -> Triangle | None:
        """QR of the long side and singular values of R."""
        tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
        try:
            triangle = np.asarray(np.linalg.qr(tall, mode="r"))
            return Triangle(np.linalg.svd(triangle, compute_uv=False), np.diag(triangle))
        except np.linalg.LinAlgError:
            return None


NUMPY = NumpyBackend()
