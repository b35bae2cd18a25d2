"""Recipes for OV circuits, which stay factored: a stack of low-rank products, one a head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rankscope.checkpoints.contents import Heads
from rankscope.checkpoints.tensors import Tensor
from rankscope.components.sources import Weight
from rankscope.spectra.matrices import Dense, LowRank
from rankscope.spectra.rounding import rounding_of


@dataclass(frozen=True)
class Circuits:
    """OV circuits of a layer, one a head: W_O[:, h]·W_V[h], of rank at most the head's size.

    Head h of a model with grouped heads reads the values of group h // (count // kv_count).
    """

    output: Weight
    value: Weight
    heads: Heads
    published: bool = False  # the study's own: W_V[h]·W_O[:, h], the heads side by side

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of every circuit."""
        return self.output.tensor.shape[0], self.value.tensor.shape[1]

    def read(self) -> Dense | LowRank:
        """The products of the heads, or the published matrix."""
        factors = self.factors()
        if not self.published:
            return factors
        side_by_side = np.hstack(list(factors.right @ factors.left))  # (size, count · size)
        return Dense(side_by_side, factors.dtype, rounding_of(side_by_side, "float64"))

    def factors(self) -> LowRank:
        """Read both weights and cut them into heads."""
        size, group = self.heads.size, self.heads.count // self.heads.kv_count
        output = self.output.added(self.output.tensor.read())
        value = self.value.added(self.value.tensor.read())
        rows, columns = output.shape[0], value.shape[1]
        left = output.reshape(rows, self.heads.count, size).transpose(1, 0, 2)
        right = np.repeat(value.reshape(self.heads.kv_count, size, columns), group, axis=0)
        return LowRank(left, right, self.output.tensor.dtype)

    def tensors(self) -> tuple[Tensor, ...]:
        """Tensors of both weights."""
        return self.output.tensors() + self.value.tensors()

    @property
    def work(self) -> float:
        """Operations of the QR decompositions of all heads."""
        return 8.0 * self.output.tensor.shape[0] * self.heads.size**2 * self.heads.count


@dataclass(frozen=True)
class CircuitsChange:
    """What the OV circuits of a layer changed by: [O′ −O]·[V′; V], of rank at most 2 head sizes."""

    later: Circuits
    earlier: Circuits

    def read(self) -> LowRank:
        """Read the circuits of both checkpoints and stack their factors."""
        later, earlier = self.later.factors(), self.earlier.factors()
        return LowRank(
            np.concatenate([later.left, -earlier.left], axis=2),
            np.concatenate([later.right, earlier.right], axis=1),
            later.dtype,
        )

    def tensors(self) -> tuple[Tensor, ...]:
        """Tensors of both checkpoints."""
        return self.later.tensors() + self.earlier.tensors()

    @property
    def work(self) -> float:
        """Operations of QR decompositions of twice the inner dimension."""
        return 4 * self.later.work
