"""Recipes for OV circuits, which stay factored: a stack of low-rank products, one per head."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from rankscope.checkpoints.contents import Heads
from rankscope.checkpoints.tensors import Tensor
from rankscope.components.products import IN_RANGE_OR_NOT, change_of_product, product_floor
from rankscope.components.recipes import Weight
from rankscope.spectra.bounds import multiplying_bound
from rankscope.spectra.matrices import Dense, LowRank, frobenius_norms, spectral_norms
from rankscope.spectra.rounding import Rounding


@dataclass(frozen=True)
class Circuits:
    """OV circuits of a layer, one per head: W_O[:, h]·W_V[h], of rank at most the head's size.

    In a model with grouped heads, head h reads the values of group h // (count // kv_count).
    """

    output: Weight
    value: Weight
    heads: Heads
    published: bool = False  # as the study has it: W_V[h]·W_O[:, h], heads side by side

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of every circuit."""
        return self.output.tensor.shape[0], self.value.tensor.shape[1]

    @IN_RANGE_OR_NOT
    def read(self) -> Dense | LowRank:
        """The products of the heads, or the published matrix."""
        factors = self.factors()
        if not self.published:
            return factors
        norms = frobenius_norms(factors.left) * frobenius_norms(factors.right)
        multiplying = multiplying_bound(1.0, 1.0, inner=factors.left.shape[1]) * norms
        return Dense(
            np.hstack(list(factors.right @ factors.left)),  # (size, count · size)
            factors.dtype,
            Rounding.by_norm(float(np.linalg.norm(factors.floor)), factors.significant_bits),
            error=float(np.linalg.norm(factors.error + multiplying)),
        )

    @IN_RANGE_OR_NOT
    def factors(self) -> LowRank:
        """Read both weights and cut them into heads."""
        size, group = self.heads.size, self.heads.count // self.heads.kv_count
        output, value = self.output.formed(), self.value.formed()
        rows, columns = output.values.shape[0], value.values.shape[1]
        left = output.values.astype(np.float64).reshape(rows, self.heads.count, size)
        left = left.transpose(1, 0, 2)
        right = value.values.astype(np.float64).reshape(self.heads.kv_count, size, columns)
        cuts = [slice(i * size, (i + 1) * size) for i in range(self.heads.count)]
        left_rounding = [output.rounding(columns=cut) for cut in cuts]
        right_rounding = [value.rounding(rows=cut) for cut in cuts[: self.heads.kv_count]]
        left_edge, right_edge = (
            np.array([one.floor for one in parts]) for parts in (left_rounding, right_rounding)
        )
        left_sizes, right_sizes = (frobenius_norms(x) for x in (left, right))
        right, right_norms, right_edge, right_sizes = (
            np.repeat(x, group, axis=0)
            for x in (right, spectral_norms(right), right_edge, right_sizes)
        )
        return LowRank(
            left,
            right,
            self.output.tensor.dtype,
            floor=product_floor((spectral_norms(left), right_norms), (left_edge, right_edge)),
            error=product_floor((left_sizes, right_sizes), (output.error, value.error)),
            significant_bits=min(one.significant_bits for one in (*left_rounding, *right_rounding)),
        )

    def tensors(self) -> tuple[Tensor, ...]:
        """Tensors of both weights."""
        return self.output.tensors() + self.value.tensors()

    @property
    def work(self) -> float:
        """Operations of the QR decompositions of all heads."""
        return 8.0 * self.output.tensor.shape[0] * self.heads.size**2 * self.heads.count


@dataclass(frozen=True)
class CircuitsChange:
    """The change of the OV circuits of a layer: O′V′ − OV, of rank at most twice the head size."""

    later: Circuits
    earlier: Circuits

    @IN_RANGE_OR_NOT
    def read(self) -> LowRank:
        """Read the circuits of both checkpoints; the change of an equal head is exactly zero."""
        earlier = self.earlier.factors()
        return replace(change_of_product(self.later.factors(), earlier), before=earlier.norms())

    def tensors(self) -> tuple[Tensor, ...]:
        """Tensors of both checkpoints."""
        return self.later.tensors() + self.earlier.tensors()

    @property
    def work(self) -> float:
        """Operations of QR decompositions of twice the inner dimension."""
        return 4 * self.later.work
