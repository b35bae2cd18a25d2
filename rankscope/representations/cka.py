"""Linear CKA of two sets of features of the same tokens, biased and unbiased.

HSIC of linear kernels needs no n×n matrix: with X and Y the centred features, aᵢ = ‖xᵢ‖² and
bᵢ = ‖yᵢ‖², every term follows from sums of the size of XᵀY. These sums add over blocks of tokens,
so that CKA without a block costs a subtraction.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rankscope.spectra.bounds import UNIT_ROUNDOFF, Values


@dataclass(frozen=True)
class KernelSums:
    """Sums over n tokens that give HSIC, about any origin; ``a - b`` leaves tokens out.

    Attributes
    ----------
    cross
        Σxyᵀ.
    first, second
        Σx and Σy.
    first_weighted, second_weighted
        Σbx and Σay.
    first_energy, second_energy, products
        Σa, Σb and Σab.
    """

    count: int
    cross: Values
    first: Values
    second: Values
    first_weighted: Values
    second_weighted: Values
    first_energy: float
    second_energy: float
    products: float

    @classmethod
    def of(cls, x: Values, y: Values) -> KernelSums:
        """Sums over features of the same tokens, shapes (n, d) and (n, d′)."""
        a, b = np.einsum("ij,ij->i", x, x), np.einsum("ij,ij->i", y, y)
        return cls(
            count=len(x),
            cross=x.T @ y,
            first=x.sum(axis=0),
            second=y.sum(axis=0),
            first_weighted=b @ x,
            second_weighted=a @ y,
            first_energy=float(a.sum()),
            second_energy=float(b.sum()),
            products=float(a @ b),
        )

    def __sub__(self, other: KernelSums) -> KernelSums:
        return KernelSums(
            count=self.count - other.count,
            cross=self.cross - other.cross,
            first=self.first - other.first,
            second=self.second - other.second,
            first_weighted=self.first_weighted - other.first_weighted,
            second_weighted=self.second_weighted - other.second_weighted,
            first_energy=self.first_energy - other.first_energy,
            second_energy=self.second_energy - other.second_energy,
            products=self.products - other.products,
        )

    def biased_hsic(self) -> float:
        """n²·HSIC of the centred kernels, ‖XᵀY‖²_F; never negative."""
        centred = self.cross - np.outer(self.first / self.count, self.second)
        return float(np.vdot(centred, centred))

    def unbiased_hsic(self) -> float:
        """n(n − 3) times the U-statistic of HSIC; its mean is 0 for independent x and y.

        With K = XXᵀ and L = YYᵀ without their diagonals, it is
        tr KL + (1ᵀK1)(1ᵀL1)/((n − 1)(n − 2)) − 2/(n − 2)·1ᵀKL1. NaN for fewer than four tokens.
        """
        n = self.count
        if n < 4:
            return math.nan
        trace = float(np.vdot(self.cross, self.cross)) - self.products
        first_sum = float(self.first @ self.first) - self.first_energy
        second_sum = float(self.second @ self.second) - self.second_energy
        rows = float(self.first @ self.cross @ self.second) + self.products
        rows -= float(self.first @ self.first_weighted) + float(self.second @ self.second_weighted)
        return trace + first_sum * second_sum / ((n - 1) * (n - 2)) - 2 / (n - 2) * rows

    def is_resolved(self, hsic: float) -> bool:
        """Whether an unbiased HSIC of a set of features with itself is not just rounding."""
        energies = self.first_energy * self.second_energy
        return hsic > 16 * (self.count + 8) * UNIT_ROUNDOFF * energies


def cka(hsic: float, first: float, second: float) -> float:
    """CKA from HSIC of two sets and of each with itself; NaN where one of these is not positive.

    References
    ----------
    S. Kornblith, M. Norouzi, H. Lee and G. Hinton, "Similarity of neural network representations
    revisited", ICML 2019. The unbiased HSIC is that of L. Song et al., "Feature selection via
    dependence maximization", JMLR 13 (2012), 1393, for CKA first used by T. Nguyen, M. Raghu and
    S. Kornblith, "Do wide and deep networks learn the same things?", ICLR 2021; it equals the
    U-statistic of G. J. Székely and M. L. Rizzo, Ann. Statist. 42 (2014), 2382.
    """
    if not (first > 0 and second > 0):
        return math.nan
    return hsic / (math.sqrt(first) * math.sqrt(second))
