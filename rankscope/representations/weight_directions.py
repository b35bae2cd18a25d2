"""The right singular vectors of a weight: the directions of the features that it reads.

Legend: W is m×d and reads features x of d dimensions, as Wx; q = min(m, d), or r for a product of
inner dimension r, whose other singular values are zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import WrongSettingError
from rankscope.shape_metrics import energy_rank
from rankscope.spectra.bounds import Values, product_bound, svd_bound


@dataclass(frozen=True)
class WeightDirections:
    """Directions that a weight reads, the ones along which it is largest first.

    Attributes
    ----------
    values
        Singular values, descending, (q,).
    right
        Right singular vectors, one a row, (q, d).
    error
        Bound on ‖E‖₂ of what rounding did to the weight: of its entries, and of this arithmetic.
    """

    values: Values
    right: Values
    error: float

    @classmethod
    def of(cls, weight: NDArray[Any], *, error: float = 0.0) -> WeightDirections:
        """From W, (m, d), finite; ``error`` bounds ‖E‖₂ of the rounding of its entries."""
        if weight.ndim != 2 or 0 in weight.shape:
            raise WrongSettingError(f"a weight has shape {weight.shape}; expected (m, d)")
        rows, columns = weight.shape
        wide = np.asarray(weight, np.float64)
        # The same right singular vectors, without m×d left ones.
        core = np.linalg.qr(wide, mode="r") if rows > columns else wide
        s, right = np.linalg.svd(core, full_matrices=False)[1:]
        return cls(s, right, error + svd_bound(float(s[0]), long_side=max(rows, columns)))

    @classmethod
    def of_product(
        cls, left: NDArray[Any], right: NDArray[Any], *, error: float = 0.0
    ) -> WeightDirections:
        """From the factors of W, (m, r) and (r, d), which is never multiplied out."""
        wide, tall = np.asarray(left, np.float64), np.asarray(right, np.float64)
        shape, inner = (len(wide), tall.shape[1]), len(tall)
        sizes = float(np.linalg.norm(wide)), float(np.linalg.norm(tall))
        error += product_bound(*sizes, shape, inner=inner)
        if inner > shape[1]:
            return cls.of(wide @ tall, error=error)
        basis, triangle = np.linalg.qr(tall.T)
        core = cls.of(wide @ triangle.T, error=error)
        return cls(core.values, core.right @ basis.T, core.error)

    @property
    def dimensions(self) -> int:
        """The d of the features."""
        return int(self.right.shape[1])

    @property
    def rank(self) -> int:
        """Singular values that are certainly not zero."""
        return int((self.values > self.error).sum())

    def holding(self, share: float) -> int:
        """The least k whose values hold this share of Σs²; all that are not zero for 1.

        0 where none is certainly not zero.
        """
        rank = self.rank
        return int(energy_rank(self.values, share)) if rank and share < 1 else rank
