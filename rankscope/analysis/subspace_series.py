"""One matrix at successive steps, whose singular subspaces are compared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from rankscope.checkpoints.tensors import Tensor
from rankscope.components.memory import check_room
from rankscope.components.recipes import OF_CONTENT, Products, Recipe
from rankscope.errors import RankscopeError
from rankscope.spectra.paired_subspaces import Chance, Decomposed, compared
from rankscope.spectra.subspace_measures import Measure, sizes


class Position(NamedTuple):
    """The matrix at one step, and the digest of its sources."""

    step: int
    recipe: Recipe
    key: str


@dataclass(frozen=True)
class Compared:
    """A matrix at one step, compared with the same matrix at another.

    Attributes
    ----------
    step, against
        The step, and the one that it is compared with.
    measures
        The numbers.
    """

    step: int
    against: int
    measures: tuple[Measure, ...]


@dataclass(frozen=True)
class SubspaceSeries:
    """A matrix at successive steps, each to be compared with others.

    Attributes
    ----------
    kind, name
        Which matrix: ``weight``, ``adapter``, ``merge``, and its name in the model.
    most
        Size of the largest subspaces.
    ranks
        Further sizes, such as the rank of the adapter.
    positions
        At least two.
    continues
        Whether the first of them was compared elsewhere, and only serves for comparison here.
    previous
        Whether each is compared with the one before it.
    first, last
        The matrix at the first and the last step of all, where each is compared with that.
    """

    kind: str
    name: str
    most: int
    ranks: tuple[int, ...]
    positions: tuple[Position, ...]
    continues: bool
    previous: bool
    first: Position | None
    last: Position | None

    def compare(self) -> list[Compared]:
        """Decompose each matrix once, in order, and compare it.

        A step whose matrix is damaged is passed over: its neighbours are compared across it, and
        the analysis of its spectrum names it. Where that is the first step of all, the first one
        of each segment that can be read takes its place; where it is the last, none does.

        Raises
        ------
        RankscopeError
            If a file cannot be read for another reason, which may pass.
        """
        last = None if self.last is None else self._read(self.last)
        start = None if self.first is None else self._read(self.first)
        before: Read | None = None
        found: list[Compared] = []
        for index, position in enumerate(self.positions):
            there = (one for one in (start, last) if one and one.step == position.step)
            now = next(there, None) or self._read(position)
            if now is None:
                continue
            if index or not self.continues:
                others = {one.step: one for one in (before, start, last) if one is not None}
                found += [self._held_against(now, one) for one in others.values() if one is not now]
            before = now if self.previous else None
            start = start or (None if self.first is None else now)
        return found

    def tensors(self) -> tuple[Tensor, ...]:
        """What is read from disk."""
        return tuple(tensor for position in self.read for tensor in position.recipe.tensors())

    @property
    def read(self) -> tuple[Position, ...]:
        """All steps that are read."""
        ends = [one for one in (self.first, self.last) if one is not None]
        return tuple(dict.fromkeys((*ends, *self.positions)))

    @property
    def work(self) -> float:
        """Approximate floating-point operations: twice those of the singular values alone."""
        return 2 * sum(position.recipe.work for position in self.read)

    def _read(self, position: Position) -> Read | None:
        try:
            recipe = position.recipe
            check_room(recipe)
            matrix = recipe.factored() if isinstance(recipe, Products) else recipe.read()
        except RankscopeError as error:
            if error.reason in OF_CONTENT:
                return None
            raise
        return Read(position.step, Decomposed.of(matrix, self.most, self._chance))

    @property
    def _chance(self) -> Chance:
        """By chance a weight is what it was plus noise; adapters and merges start from nothing."""
        return "change" if self.kind == "weight" else "unrelated"

    def _held_against(self, now: Read, before: Read) -> Compared:
        found = compared(
            now.matrix,
            before.matrix,
            sizes(self.most, *self.ranks),
            self._chance,
            key=(self.name, now.step, before.step),
        )
        return Compared(now.step, before.step, tuple(found))


class Read(NamedTuple):
    """The matrix at a step."""

    step: int
    matrix: Decomposed
