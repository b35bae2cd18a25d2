"""The family of a model, by its config or by the names and shapes of its tensors."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from rankscope.checkpoints.families.family import GENERIC, Family, Said, ends_with
from rankscope.checkpoints.families.family_files import families
from rankscope.checkpoints.families.names import tower_of

SHORT = 3  # a model type of at most this many letters must be a word of the name
INDEX = re.compile(r"\.\d+(?=\.)")  # of a layer or an expert


def family_of(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Family:
    """The family of a model, by its config, else by the names and shapes of its tensors.

    Parameters
    ----------
    config
        Its ``config.json`` or an equivalent; empty if there is none.
    shapes
        Shape of the tensor of each module.

    Returns
    -------
    The family; of several that fit, the most specific. ``generic``, which knows the common names,
    if none fits.
    """
    shapes = of_one_layer(shapes)
    stated = config.get("model_type")
    agreeing = [f for f in families().values() if _agrees(f, config)]
    by_type = [f for f in agreeing if stated in f.model_types and _has_shapes(f, shapes)]
    for family in by_type or agreeing:
        if _has_keys(family, shapes) and _has_shapes(family, shapes):
            return family
    return by_type[0] if by_type else families()[GENERIC]


def of_one_layer(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The shapes of all layers and experts by the names that they have in the first."""
    names = INDEX.sub(".0", "\n".join(shapes)).split("\n")
    if len(names) != len(shapes):  # a name has two lines
        names = [INDEX.sub(".0", name) for name in shapes]
    return dict(zip(names, shapes.values(), strict=True))


def _agrees(family: Family, config: Mapping[str, Any]) -> bool:
    return all(config.get(key, False) == value for key, value in family.when.items())


def _held(end: str, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
    return (shape for module, shape in shapes.items() if ends_with(module, end))


def _has_keys(family: Family, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a family has keys and all of them occur, and nothing that must not."""
    return (
        bool(family.keys)
        and all(any(_held(end, shapes)) for end in family.keys)
        and not any(any(_held(end, shapes)) for end in family.unless)
    )


def _has_shapes(family: Family, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether shapes are as the family says: wide, tall, or twice another."""
    return (
        all(all(shape[-1] > shape[0] for shape in _held(end, shapes)) for end in family.wide)
        and all(all(shape[-1] < shape[0] for shape in _held(end, shapes)) for end in family.tall)
        and all(_is_twice(end, other, shapes) for end, other in family.twice.items())
    )


def _is_twice(end: str, other: str, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether both occur, and the outputs of the first are always twice the inputs of the other."""
    firsts, seconds = list(_held(end, shapes)), list(_held(other, shapes))
    inputs = {2 * shape[-1] for shape in seconds}
    return bool(firsts) and all(shape[-2] in inputs for shape in firsts)


@dataclass(frozen=True)
class TowerFamilies(Family):
    """The family of a model, with other families for some of its towers.

    Attributes
    ----------
    others
        Families by the path of a tower, up to the number of its block.
    """

    others: Mapping[str, Family] = field(default_factory=dict)

    def axes_of(self, module: str, count: int) -> tuple[str, ...] | None:
        """The axes of the tensor of a module, if it has ``count``; None if no table says."""
        other = self._other(module)
        return super().axes_of(module, count) if other is None else other.axes_of(module, count)

    def tells_apart(self, number: str) -> bool:
        """Whether a part of one of the tables may fit a number in a path and not another one."""
        others = any(table.tells_apart(number) for table in self.others.values())
        return super().tells_apart(number) or others

    def _said(self, module: str) -> Said:
        """What the table of its tower says."""
        other = self._other(module)
        return super()._said(module) if other is None else other._said(module)

    def _other(self, module: str) -> Family | None:
        return self.others.get(tower_of(module)) if self.others else None


def with_towers(family: Family, shapes: Mapping[str, tuple[int, ...]]) -> Family:
    """The family, with another for each tower that the other knows more modules of.

    A language model for images has a tower of another family, for example. The cost of an error:
    roles in a tower are different, or a fused map is cut there that its family leaves whole.

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


def adapted_family(shapes: Mapping[str, tuple[int, ...]], named: str = "") -> Family:
    """The family of a model without weights: the one that knows most of its adapted modules.

    Adapters change only some projections, so no family has all its keys; and their deltas are
    (outputs, inputs) however the weights are stored. Of families that know equally many modules and
    agree on all, the simplest is taken; if they differ, the one whose sizes are those of the
    deltas, as with a fused gate, or the one that the name of the base contains. If that says
    nothing either, ``generic``: a missing role is better than a wrong one. Families that need an
    entry in the config are taken only if the name contains them.

    Parameters
    ----------
    shapes
        Shape of the delta of each module.
    named
        What the adapter's config calls its base model.
    """
    answers = {name: _answer(family, shapes) for name, family in families().items()}
    known = {name: sum(one != ("other", None) for one in a) for name, a in answers.items()}
    most = max(known.values(), default=0)
    best = [name for name, count in known.items() if count == most and most]
    best = _by_sizes(best, shapes)
    called = _called(best, named)
    best = [name for name in best if not families()[name].when]
    said = {answers[name] for name in best}
    if called is None and len(said) != 1:
        return families()[GENERIC]
    return families()[called or (GENERIC if GENERIC in best else best[-1])]


def _by_sizes(names: Iterable[str], shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """The families that the sizes confirm; without one, those that they do not contradict."""
    fits = {}
    for name in names:
        pairs = families()[name].twice.items()
        if pairs and all(any(_held(end, shapes)) for pair in pairs for end in pair):
            fits[name] = all(_is_twice(end, other, shapes) for end, other in pairs)
    confirmed = [name for name, fit in fits.items() if fit]
    return confirmed or [name for name in names if fits.get(name, True)]


def _answer(family: Family, modules: Iterable[str]) -> tuple[tuple[str, object], ...]:
    return tuple((family.role_of(module), family.fused_in(module)) for module in modules)


def _called(names: Iterable[str], named: str) -> str | None:
    """The family with the longest model type in the name of the base; None if it has none."""
    words = re.split(r"[^a-z0-9]+", named.lower())
    text = "".join(words)
    fitting = [
        (len(kind), name)
        for name in names
        for kind in (*map(_plain, families()[name].model_types), _plain(name))
        if (kind in words if len(kind) <= SHORT else kind in text)
    ]
    return max(fitting)[1] if fitting else None


def _plain(kind: str) -> str:
    return re.sub(r"[^a-z0-9]", "", kind.lower())
