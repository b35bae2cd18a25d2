"""Linear CKA of two sets of features of the same tokens, biased and unbiased.

HSIC compares the kernels K = XXᵀ and L = YYᵀ of two feature matrices. For linear kernels no n×n
matrix is needed: everything follows from Σxyᵀ and Σx, Σy over each block of tokens.

The usual unbiased estimate leaves out the pairs of a token with itself. But the tokens of one
document depend on each other too: then CKA of unrelated features is above zero, and outside of its
own interval. Here only tokens of different blocks meet. If each token is a block of its own, it is
the usual one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rankscope.spectra.bounds import Values

LEAST_BLOCKS = 4  # of which the unbiased estimate takes four at a time


@dataclass(frozen=True)
class BlockKernels:
    """What HSIC needs of g blocks, with C_b, s_b and t_b the means of xyᵀ, x and y in block b.

    Attributes
    ----------
    squares, products
        ‖C_b‖²_F, and its inner product with the sum of all C_b; (g,).
    first, second
        Inner products s_b·s_c and t_b·t_c, (g, g).
    triples
        s_cᵀ·C_b·t_d at [b, c, d], (g, g, g).
    biased
        ‖XᵀY‖²_F of all tokens, for features that are centred: n² times the biased HSIC.
    """

    squares: Values
    products: Values
    first: Values
    second: Values
    triples: Values
    biased: float

    @classmethod
    def of(cls, x: Values, y: Values, parts: list[NDArray[Any]]) -> BlockKernels:
        """From centred features of the same tokens, (n, d) and (n, d′), and the rows of each block.

        The products of one block are in memory at a time.
        """
        sums = np.array([x[part].mean(axis=0) for part in parts])
        others = np.array([y[part].mean(axis=0) for part in parts])
        total = sum(x[part].T @ y[part] / len(part) for part in parts)
        squares, products, triples = [], [], []
        whole = np.zeros((x.shape[1], y.shape[1]))
        for part in parts:
            cross = x[part].T @ y[part]
            whole += cross
            cross /= len(part)
            squares.append(np.vdot(cross, cross))
            products.append(np.vdot(cross, total))
            triples.append(sums @ cross @ others.T)
        return cls(
            squares=np.array(squares, np.float64),
            products=np.array(products, np.float64),
            first=sums @ sums.T,
            second=others @ others.T,
            triples=np.array(triples, np.float64),
            biased=float(np.vdot(whole, whole)),
        )

    def unbiased(self) -> Values:
        """HSIC from tokens of different blocks, of all blocks and then without each; (g + 1,).

        E[k₁₂l₁₂] + E[k₁₂]·E[l₁₂] − 2·E[k₁₂l₁₃], each as a mean over all tuples of different blocks,
        which weigh alike. Its mean is zero where x and y are independent. NaN for fewer than four
        blocks.
        """
        g = len(self.squares) - np.arange(len(self.squares) + 1).clip(max=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            pairs = self._pairs() / (g * (g - 1.0))
            apart = self._apart() / (g * (g - 1.0) * (g - 2) * (g - 3))
            chained = self._chained() / (g * (g - 1.0) * (g - 2))
            return np.where(g < LEAST_BLOCKS, math.nan, pairs + apart - 2 * chained)

    def _pairs(self) -> Values:
        """Sum of ⟨C_b, C_c⟩ over b ≠ c."""
        total = self.products.sum() - self.squares.sum()
        return np.append(total, total - 2 * (self.products - self.squares))

    def _apart(self) -> Values:
        """Sum of s_a·s_b times t_c·t_d over four different blocks."""
        first, second = (_with_deletions(matrix) for matrix in (self.first, self.second))
        # Of all pairs, those that share one index are four cases, and those that share both are in
        # two of them each.
        shared = (first.rows * second.rows).sum(axis=1)
        own = first.matrix * second.matrix
        same = np.append(own.sum(), own.sum() - 2 * own.sum(axis=0))
        both = first.rows.sum(axis=1) * second.rows.sum(axis=1)
        return np.asarray(both - 4 * shared + 2 * same, np.float64)

    def _chained(self) -> Values:
        """Sum of s_cᵀ·C_b·t_d over three different blocks."""
        blocks = np.arange(len(self.triples))
        different = self.triples.copy()
        different[blocks, blocks] = different[blocks, :, blocks] = 0
        different[:, blocks, blocks] = 0
        total = different.sum()
        parts = different.sum((1, 2)) + different.sum((0, 2)) + different.sum((0, 1))
        return np.append(total, total - parts)


class _Deletions(NamedTuple):
    """A symmetric matrix without its diagonal, and its row sums: of all, and without each index."""

    matrix: Values
    rows: Values  # (g + 1, g)


def _with_deletions(matrix: Values) -> _Deletions:
    matrix = matrix - np.diag(np.diag(matrix))
    rows = matrix.sum(axis=1)
    without = rows - matrix
    np.fill_diagonal(without, 0)
    return _Deletions(matrix, np.vstack([rows, without]))


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
