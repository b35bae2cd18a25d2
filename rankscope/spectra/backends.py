"""Linear algebra in float64 on a device; the results are numpy arrays.

A backend only computes. Scaling, checks and intervals are the same for all backends, so that a
faulty driver is caught just as a faulty library is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rankscope.spectra.bounds import Values


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
class Triangle:
    """Singular values, descending, and diagonal of the triangular factor R."""

    values: Values
    diagonal: Values


class Backend(Protocol):
    """What computes, on a processor or a GPU."""

    def grams(self, matrices: Sequence[Values]) -> list[Gram]:
        """Gram matrices of float64 matrices of one shape, (m, n) each."""

    def triangle(self, matrix: Values) -> Triangle | None:
        """QR of the long side and singular values of R, of a float64 matrix; None if it fails."""


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
