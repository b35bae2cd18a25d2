"""Eigenvalues of symmetric matrices, in one stage or in two.

LAPACK's usual way makes the matrix tridiagonal at once. Half of that work is matrix times vector,
which waits for memory. In two stages, dense to a band and band to tridiagonal, nearly all of it is
matrix times matrix. numpy wraps the first way alone; its library has the routines of both.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from rankscope.spectra.bounds import UNIT_ROUNDOFF, Values
from rankscope.spectra.lapack_routines import Routines, routines

BAND = 64  # subdiagonals of the band; at 4096, 48 to 96 take about as long
TO_BAND, TO_TRIDIAGONAL, OF_TRIDIAGONAL = "dsytrd_sy2sb", "dsytrd_sb2st", "dsterf"

# From which size two stages take less time. Kernels with AVX-512 multiply faster than memory
# delivers; measured with those of SkylakeX and of Haswell (`benchmarks/README.md`).
LEAST = 2048
LEAST_FAST = 1024
FAST_KERNELS = ("SkylakeX", "Cooperlake", "SapphireRapids")


def eigenvalues(matrix: Values) -> Values:
    """Eigenvalues of a symmetric matrix, ascending, by the faster way for its size.

    Both ways are backward stable (docs/numerics.md, section 1), and the choice depends on the size
    and the machine alone, so that a second call gives the same bits.

    Parameters
    ----------
    matrix
        Shape ``(q, q)``, finite, float64. It is not changed.

    Raises
    ------
    numpy.linalg.LinAlgError
        If the solver did not converge.
    """
    if len(matrix) >= LEAST_FAST and (stages := two_stages()) and len(matrix) >= stages.least:
        return stages.eigenvalues(matrix)
    return np.asarray(np.linalg.eigvalsh(matrix), np.float64)


def way() -> str:
    """How eigenvalues of large matrices are found here, for records and bug reports.

    Examples
    --------
    >>> from rankscope.spectra.symmetric import way
    >>> way().split()[0] in ("two", "one")
    True
    """
    stages = two_stages()
    return f"two stages from {stages.least}" if stages else "one stage"


@dataclass(frozen=True)
class TwoStages:
    """LAPACK's routines for both stages, for matrices of more than ``width`` + 1 rows.

    Attributes
    ----------
    least
        The size from which two stages are faster than one.
    width
        Subdiagonals of the band.
    """

    lapack: Routines
    least: int = LEAST
    width: int = BAND

    def eigenvalues(self, matrix: Values) -> Values:
        """Eigenvalues of a symmetric matrix, ascending."""
        return self.of_band(self.band(matrix))

    def band(self, matrix: Values) -> Values:
        """A band with the same eigenvalues, (q, width + 1): entry (j + i, j) is at [j, i]."""
        n, k = len(matrix), self.width
        reduced = np.array(matrix, np.float64, order="C")
        band, scales, work = np.zeros((n, k + 1)), np.empty(n - k), np.empty(1)
        given = (b"L", n, k, reduced, n, band, k + 1, scales)
        self.lapack.call(TO_BAND, *given, work, -1)  # asks for the size of the workspace
        work = np.empty(int(work[0]))
        self.lapack.call(TO_BAND, *given, work, len(work))
        return band

    def of_band(self, band: Values) -> Values:
        """Eigenvalues, ascending, of a band as `band` gives it, which is overwritten."""
        n, k = len(band), self.width
        diagonal, beside, turns, work = np.empty(n), np.empty(n), np.empty(1), np.empty(1)
        given = (b"Y", b"N", b"L", n, k, band, k + 1, diagonal, beside)
        self.lapack.call(TO_TRIDIAGONAL, *given, turns, -1, work, -1)  # asks, as above
        turns, work = np.empty(int(turns[0])), np.empty(int(work[0]))
        self.lapack.call(TO_TRIDIAGONAL, *given, turns, len(turns), work, len(work))
        self.lapack.call(OF_TRIDIAGONAL, n, diagonal, beside)
        return diagonal


@cache
def two_stages() -> TwoStages | None:
    """The routines, if a library here has them and finds eigenvalues that are known; else None."""
    lapack = routines(TO_BAND, TO_TRIDIAGONAL, OF_TRIDIAGONAL)
    if lapack is None:
        return None
    stages = TwoStages(lapack, LEAST_FAST if lapack.kernel in FAST_KERNELS else LEAST)
    return stages if _passes(stages) else None


def _passes(stages: TwoStages) -> bool:
    """Whether the routines find the eigenvalues of a matrix that holds no rounding.

    With the Hadamard matrix H of n = 2ᵏ rows, H·D·H/n has the eigenvalues D, and is formed without
    error for integers D.
    """
    hadamard = np.ones((1, 1))
    while len(hadamard) < 2 * stages.width:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    n = len(hadamard)
    known = np.arange(n) // 3 * 7.0 - 100  # ascending, with equal ones, zero, and negative ones
    try:
        found = stages.eigenvalues((hadamard * known) @ hadamard / n)
    except np.linalg.LinAlgError:
        return False
    error = float(np.abs(found - known).max())
    return error <= 8 * n * UNIT_ROUNDOFF * float(np.abs(known).max())
