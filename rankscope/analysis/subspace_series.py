"""One matrix at successive steps, whose singular subspaces are compared with earlier ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from rankscope.checkpoints.tensors import Tensor
from rankscope.components.recipes import Products, Recipe
from rankscope.errors import RankscopeError
from rankscope.spectra.paired_subspaces import Chance, Decomposed, compared
from rankscope.spectra.subspace_measures import Measure, sizes

# Reasons that are in a file, and stay until it is another file.
OF_CONTENT = ("damaged", "cut-short", "quantised")


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
        start = self._read(self.first)
        is_first = self.positions[0] == self.first
        before = start if is_first else self._read(self.positions[0]) or start
        found: list[Compared] = []
        for position in self.positions[1:]:
            now = self._read(position)
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

    def _read(self, position: Position) -> Read | None:
        try:
            recipe = position.recipe
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
