"""One matrix at successive steps, whose singular subspaces are compared with earlier ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from rankscope.checkpoints.tensors import Tensor
from rankscope.components.recipes import OF_CONTENT, Products, Recipe
from rankscope.errors import RankscopeError
from rankscope.spectra.bases import Basis, basis_of
from rankscope.spectra.chance import SIDES
from rankscope.spectra.matrices import Decomposable, Dense, LowRank
from rankscope.spectra.subspace_measures import (
    Change,
    Measure,
    compare_products,
    compare_weights,
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
    """

    step: int
    against: int
    measures: tuple[Measure, ...]


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

        A step whose matrix is damaged is passed over: its neighbours are compared across it, and
        the analysis of its spectrum names it. Where that is the first step of all, the first one
        of each segment that can be read takes its place.

        Raises
        ------
        RankscopeError
            If a file cannot be read for another reason, which may pass.
        """
        start = self._decomposed(self.first)
        is_first = self.positions[0] == self.first
        before = start if is_first else self._decomposed(self.positions[0]) or start
        found: list[Compared] = []
        for position in self.positions[1:]:
            now = self._decomposed(position)
            if now is None:
                continue
            earlier = {one.step: one for one in (before, start) if one is not None}
            found += [self._held_against(now, one) for one in earlier.values()]
            before, start = now, start or now
        return found

    def tensors(self) -> tuple[Tensor, ...]:
        """What is read from disk."""
        positions = (self.first, *self.positions)
        return tuple(tensor for position in positions for tensor in position.recipe.tensors())

    @property
    def work(self) -> float:
        """Approximate floating-point operations: twice those of the singular values alone."""
        return 2 * sum(position.recipe.work for position in (self.first, *self.positions))

    def _decomposed(self, position: Position) -> _Decomposed | None:
        try:
            recipe = position.recipe
            matrix = recipe.factored() if isinstance(recipe, Products) else recipe.read()
        except RankscopeError as error:
            if error.reason in OF_CONTENT:
                return None
            raise
        # By chance a weight is what it was plus noise; adapters and merges start from nothing.
        if self.kind == "weight" and isinstance(matrix, LowRank):
            matrix = matrix.dense()
        return _Decomposed(position.step, matrix, basis_of(matrix, self.most))

    def _held_against(self, now: _Decomposed, before: _Decomposed) -> Compared:
        if now.basis is None or before.basis is None:
            status = (now if now.basis is None else before).why_not
            measures = [Measure("overlap", s, 0, None, None, None, None, status) for s in SIDES]
            return Compared(now.step, before.step, tuple(measures))
        ks = sizes(self.most, *self.ranks)
        if (
            self.kind == "weight"
            and isinstance(now.matrix, Dense)
            and isinstance(before.matrix, Dense)
        ):
            change = Change.between(now.matrix, before.matrix)
            key = (self.name, now.step, before.step)
            found = compare_weights(now.basis, before.basis, change, ks, key)
        else:
            found = compare_products(now.basis, before.basis, ks)
        return Compared(now.step, before.step, tuple(found))


@dataclass(frozen=True)
class _Decomposed:
    step: int
    matrix: Decomposable
    basis: Basis | None

    @property
    def why_not(self) -> Literal["zero", "nonfinite", "no-gap"]:
        """Why there is no basis, where there is none."""
        parts = (
            (self.matrix.values,)
            if isinstance(self.matrix, Dense)
            else (self.matrix.left, self.matrix.right)
            if isinstance(self.matrix, LowRank)
            else ()
        )
        if not all(np.isfinite(part).all() for part in parts):
            return "nonfinite"
        return "no-gap" if all(part.any() for part in parts) else "zero"
