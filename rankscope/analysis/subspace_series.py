"""One matrix at successive steps, whose singular subspaces are compared with earlier ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from rankscope.checkpoints.tensors import Tensor
from rankscope.components.recipes import Recipe
from rankscope.spectra.bases import Basis, basis_of
from rankscope.spectra.bounds import Values
from rankscope.spectra.chance import SIDES
from rankscope.spectra.matrices import Decomposable, Dense, LowRank
from rankscope.spectra.rounding import Rounding
from rankscope.spectra.subspace_measures import (
    Change,
    Measure,
    compare_products,
    compare_weights,
    principal_cosines,
    sizes,
)


class Position(NamedTuple):
    """The matrix at one step, and the digest of what it is read from."""

    step: int
    recipe: Recipe
    key: str


@dataclass(frozen=True)
class Compared:
    """A matrix at one step, compared with the same matrix at an earlier one.

    Attributes
    ----------
    step, against
        The later and the earlier step.
    measures
        What was found.
    cosines
        Cosines of the principal angles between the largest compared subspaces, left and right;
        empty where there are none.
    """

    step: int
    against: int
    measures: tuple[Measure, ...]
    cosines: tuple[Values, Values]


@dataclass(frozen=True)
class SubspaceSeries:
    """A matrix at successive steps, each to be compared with the first and the previous one.

    Attributes
    ----------
    kind, name
        Which matrix: ``weight``, ``adapter``, ``merge``, and its name in the model.
    most
        Size of the largest subspaces.
    ranks
        Further sizes, such as the rank of the adapter.
    first
        The matrix at the first step of all.
    positions
        At least two; the first only serves for comparison.
    """

    kind: str
    name: str
    most: int
    ranks: tuple[int, ...]
    first: Position
    positions: tuple[Position, ...]

    def compare(self) -> list[Compared]:
        """Decompose each matrix once, in order, and compare it.

        Raises
        ------
        RankscopeError
            If a tensor cannot be read.
        """
        return list(self._iter_compared())

    def tensors(self) -> tuple[Tensor, ...]:
        """What is read from disk."""
        positions = (self.first, *self.positions)
        return tuple(tensor for position in positions for tensor in position.recipe.tensors())

    @property
    def work(self) -> float:
        """Approximate floating-point operations: twice those of the singular values alone."""
        return 2 * sum(position.recipe.work for position in (self.first, *self.positions))

    def _iter_compared(self) -> Iterator[Compared]:
        first = self._decomposed(self.first)
        before = first if self.positions[0] == self.first else self._decomposed(self.positions[0])
        for position in self.positions[1:]:
            now = self._decomposed(position)
            yield self._held_against(now, before)
            if first.step != before.step:
                yield self._held_against(now, first)
            before = now

    def _decomposed(self, position: Position) -> _Decomposed:
        matrix = position.recipe.read()
        # By chance a weight is what it was plus noise; adapters and merges start from nothing.
        if self.kind == "weight" and isinstance(matrix, LowRank):
            floor = Rounding.by_norm(float(matrix.floor), matrix.significant_bits)
            matrix = Dense(matrix.multiplied(), matrix.dtype, floor, float(matrix.error))
        return _Decomposed(position.step, matrix, basis_of(matrix, self.most))

    def _held_against(self, now: _Decomposed, before: _Decomposed) -> Compared:
        nothing = np.empty(0)
        if now.basis is None or before.basis is None:
            status = (now if now.basis is None else before).why_not
            measures = [Measure("overlap", s, 0, None, None, None, None, status) for s in SIDES]
            return Compared(now.step, before.step, tuple(measures), (nothing, nothing))
        ks = sizes(self.most, *self.ranks)
        if isinstance(now.matrix, Dense) and isinstance(before.matrix, Dense):
            change = Change.between(now.matrix, before.matrix)
            key = (self.name, now.step, before.step)
            found = compare_weights(now.basis, before.basis, change, ks, key)
        else:
            found = compare_products(now.basis, before.basis, ks)
        k = min(now.basis.count, before.basis.count)
        left, right = (principal_cosines(now.basis, before.basis, side, k) for side in SIDES)
        return Compared(now.step, before.step, tuple(found), (left, right))


@dataclass(frozen=True)
class _Decomposed:
    step: int
    matrix: Decomposable
    basis: Basis | None

    @property
    def why_not(self) -> Literal["zero", "nonfinite"]:
        """Why there is no basis, where there is none."""
        parts = (
            (self.matrix.values,)
            if isinstance(self.matrix, Dense)
            else (self.matrix.left, self.matrix.right)
            if isinstance(self.matrix, LowRank)
            else ()
        )
        return "zero" if all(np.isfinite(part).all() for part in parts) else "nonfinite"
