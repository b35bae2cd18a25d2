"""`Formed`: a weight as the model uses it, put together in float64, with every error in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rankscope.components.products import is_zero
from rankscope.spectra.bounds import UNIT_ROUNDOFF, multiplying_bound
from rankscope.spectra.formats import Format
from rankscope.spectra.matrices import Dense, LowRank, Matrix, norm_of
from rankscope.spectra.rounding import Rounding, rounding_of

ALL = slice(None)


@dataclass(frozen=True)
class Formed:
    """W, or W + scale·B·A.

    Attributes
    ----------
    values
        The matrix, (m, n).
    dtype
        Format of the file that W is in.
    stored
        Stored matrices of the same shape whose rounding is in it, each with what it is rounded
        to: W; and what W was before merges on record, which did not take its rounding away.
    beside
        Largest singular value that the rounding of B and A may bring.
    error
        Bound on the Frobenius norm of what forming the sum in float64 rounded:
        u·‖W + sBA‖ + (r + 1)·u·‖sB‖·‖A‖, and the rounding of the scale.
    """

    values: Matrix
    dtype: str
    stored: tuple[tuple[Matrix, Format], ...]
    beside: float = 0.0
    error: float = 0.0

    def rounding(self, rows: slice = ALL, columns: slice = ALL) -> Rounding:
        """Rounding in the matrix, or in the part of it that these rows and columns are."""
        (first, stored), *others = self.stored
        total = rounding_of(first[rows, columns], stored)
        for values, found in others:
            total += rounding_of(values[rows, columns], found)
        return total + Rounding.by_norm(self.beside, total.significant_bits)

    def dense(self) -> Dense:
        """The matrix for its spectrum."""
        return Dense(self.values, self.dtype, self.rounding(), self.error)


def formed(
    dtype: str, stored: tuple[tuple[Matrix, Format], ...], product: LowRank | None
) -> Formed:
    """The first of the ``stored`` matrices, plus a product if there is one that is not zero."""
    values = stored[0][0]
    if product is None or is_zero(product):
        return Formed(values, dtype, stored)
    total, error = added(values.astype(np.float64), product)
    return Formed(total, dtype, stored, float(product.floor), error)


def added(values: Matrix, product: LowRank) -> tuple[Matrix, float]:
    """``values`` plus a product, and a bound on what that rounded, in the Frobenius norm."""
    with np.errstate(over="ignore", invalid="ignore"):
        total = values + product.multiplied()
    norms = [norm_of(factor).value for factor in (product.left, product.right)]
    multiplying = multiplying_bound(*norms, inner=product.inner)
    return total, float(product.error) + multiplying + UNIT_ROUNDOFF * norm_of(total).value
