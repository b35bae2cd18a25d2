"""Models of several towers, of which one is built otherwise than the rest: a family for each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from rankscope.checkpoints.families.family import Family, Fused
from rankscope.checkpoints.families.names import tower_of
from rankscope.checkpoints.families.recognition import family_of


@dataclass(frozen=True)
class TowerFamilies(Family):
    """The family of a model, with those of the towers whose modules it knows less well.

    Attributes
    ----------
    others
        By the path of a tower, up to the number of its block.
    """

    others: Mapping[str, Family] = field(default_factory=dict)

    def role_of(self, module: str) -> str:
        """Role of a module in its tower; ``other`` where no table knows it."""
        other = self._other(module)
        return super().role_of(module) if other is None else other.role_of(module)

    def fused_in(self, module: str) -> Fused | None:
        """How the tensor of a module is split, if it is."""
        other = self._other(module)
        return super().fused_in(module) if other is None else other.fused_in(module)

    def is_transposed(self, module: str) -> bool:
        """Whether the tensor of a module is stored (inputs, outputs)."""
        other = self._other(module)
        return super().is_transposed(module) if other is None else other.is_transposed(module)

    def axes_of(self, module: str, count: int) -> tuple[str, ...] | None:
        """What so many axes of the tensor of a module are; None where no table says."""
        other = self._other(module)
        return super().axes_of(module, count) if other is None else other.axes_of(module, count)

    def ignores(self, module: str) -> bool:
        """Whether a module is not a linear map."""
        other = self._other(module)
        return super().ignores(module) if other is None else other.ignores(module)

    def _other(self, module: str) -> Family | None:
        return self.others.get(tower_of(module)) if self.others else None


def with_towers(family: Family, shapes: Mapping[str, tuple[int, ...]]) -> Family:
    """The family, with those of towers that another one knows more modules of by their names.

    A language model that looks at images has a tower that knows nothing of its family. If this
    errs, roles in a tower are others, and a fused map is cut there that its family leaves whole.

    Parameters
    ----------
    shapes
        Shape of the tensor of each module.
    """
    towers: dict[str, dict[str, tuple[int, ...]]] = defaultdict(dict)
    for module, shape in shapes.items():
        towers[tower_of(module)][module] = shape
    if len(towers) < 2:
        return family
    others = {}
    for tower, own in towers.items():
        found = family_of({}, own) if tower else family
        if _known(found, own) > _known(family, own):
            others[tower] = found
    if not others:
        return family
    stated = {entry.name: getattr(family, entry.name) for entry in fields(Family)}
    return TowerFamilies(**stated, others=others)


def _known(family: Family, modules: Mapping[str, tuple[int, ...]]) -> int:
    return sum(
        family.role_of(module) != "other" or family.fused_in(module) is not None
        for module in modules
    )
