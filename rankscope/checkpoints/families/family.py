"""`Family`: what a kind of model calls its parameters, and how it stores them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any, Literal, NamedTuple, TypeVar

from rankscope.checkpoints.families.factor_tables import FactorTable
from rankscope.checkpoints.families.names import CROSSING
from rankscope.checkpoints.families.norm_tables import NormTable

MOST_SAID = 2**12  # modules whose answers are remembered
GENERIC = "generic"  # the family of models that no other fits
OF_ATTENTION = ("q", "k", "v", "o")  # roles that only self-attention has
T = TypeVar("T")
Split = Literal["blocks", "heads", "groups", "alternate", "equal", "flat"]


@dataclass(frozen=True)
class Fused:
    """How one stored matrix holds several, one below the other.

    Attributes
    ----------
    parts
        Roles, in the order of their rows.
    split
        ``blocks``: all rows of the first part, then all of the next, as many as the heads need.
        ``equal``: the same with equally many rows for each part. ``flat``: the same with equally
        many elements, if the stored matrix is wide. ``heads``: for each head, one block of every
        part. ``groups``: for each key-value head, its queries, then its key, then its value.
        ``alternate``: the rows of the parts alternate.
    times
        How often the whole pattern is repeated down the rows.
    role
        The role of all parts in tables, if they are not the layer's self-attention, as in attention
        to an encoder. Empty if they have the roles in ``parts``.
    """

    parts: tuple[str, ...]
    split: Split = "blocks"
    times: int = 1
    role: str = ""


class Said(NamedTuple):
    """What a family's table says of a module."""

    role: str
    is_named: bool
    fused: Fused | None
    is_transposed: bool
    is_ignored: bool


@dataclass(frozen=True)
class Family:
    """The table of a kind of model; ``docs/checkpoints.md`` says how to add one.

    Attributes
    ----------
    name, description
        What it is called, and which models have it.
    model_types
        Values of ``model_type`` in ``config.json``.
    when
        Other entries that the config must have; a missing entry counts as false.
    keys
        Ends of module paths that identify it without a config: all must occur.
    unless
        Ends of module paths that must not occur then.
    wide, tall
        Ends of module paths whose tensors have more columns than rows, or more rows than columns.
    twice
        End of a module path → that of another: the first has twice as many outputs as the second
        has inputs, as a fused gate and up have before the down.
    roles
        End of a module path → role. ``*`` stands for one part of the path; the first match counts.
    fused
        End of a module path → how it is split.
    axes
        End of a module path → the axes of its tensor, if it has more than two: ``out`` and ``in``,
        where several of one kind are joined in their order; and ``layer``, ``expert`` or ``part``,
        which number matrices. Parts have the roles that ``fused`` gives.
    transposed
        Ends of module paths whose tensors are stored (inputs, outputs).
    ignored
        Parts of paths, as patterns, of tensors with several axes that are not a linear map.
    config
        What the config calls ``heads``, ``kv_heads``, ``head_size`` and ``width``.
    factors
        Tensors that make one matrix, in addition to those known in every family.
    norms
        Norms between the maps of an attention, before those known by the type of a model.
    """

    name: str
    description: str = ""
    model_types: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    unless: tuple[str, ...] = ()
    wide: tuple[str, ...] = ()
    tall: tuple[str, ...] = ()
    transposed: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    when: Mapping[str, Any] = field(default_factory=dict)
    config: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)
    fused: Mapping[str, Fused] = field(default_factory=dict)
    axes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    twice: Mapping[str, str] = field(default_factory=dict)
    factors: tuple[FactorTable, ...] = ()
    norms: tuple[NormTable, ...] = ()

    def role_of(self, module: str) -> str:
        """Role of a module; ``other`` if the table does not know it.

        So are the maps of attention to an encoder, unless the table names that attention.
        """
        return self._said(module).role

    def names(self, module: str) -> bool:
        """Whether the table of roles has a module, which may have the role ``other`` all the same.

        So have the maps of attention to an encoder.
        """
        return self._said(module).is_named

    def fused_in(self, module: str) -> Fused | None:
        """How the tensor of a module is split; None if it is not."""
        return self._said(module).fused

    def is_transposed(self, module: str) -> bool:
        """Whether the tensor of a module is stored (inputs, outputs)."""
        return self._said(module).is_transposed

    def axes_of(self, module: str, count: int) -> tuple[str, ...] | None:
        """The axes of the tensor of a module, if it has ``count``; None if unknown."""
        return next(
            (axes for end, axes in self._axes if len(axes) == count and end.fullmatch(module)), None
        )

    def ignores(self, module: str) -> bool:
        """Whether the table says that a module is not a linear map."""
        return self._said(module).is_ignored

    def tells_apart(self, number: str) -> bool:
        """Whether a part of the table may fit a number in a path and not another one."""
        return self._others is None or number in self._stated

    def _said(self, module: str) -> Said:
        """What the table says, found once for all modules that it cannot tell apart."""
        alike = self._alike(module)
        said = self._remembered.get(alike)
        if said is None:
            if len(self._remembered) >= MOST_SAID:
                self._remembered.clear()
            said = self._remembered[alike] = Said(
                *self._role_of(alike),
                self._fused_in(alike),
                any(end.fullmatch(alike) for end in self._transposed),
                bool(self.ignored) and bool(self._ignored.search(alike)),
            )
        return said

    def _role_of(self, module: str) -> tuple[str, bool]:
        """Role of a module, and whether the table names it."""
        role, crosses = _first((end.fullmatch(module), one) for end, one in self._roles)
        if role is None:
            return "other", False
        return "other" if crosses and role in OF_ATTENTION else role, True

    def _fused_in(self, module: str) -> Fused | None:
        fused, crosses = _first((end.fullmatch(module), one) for end, one in self._fused)
        if fused is None or fused.role or not crosses or fused.parts[0] not in OF_ATTENTION:
            return fused
        return replace(fused, role="other")

    def _alike(self, module: str) -> str:
        """The path with one number in place of all that the table does not have."""
        return module if self._others is None else self._others[0].sub(self._others[1], module)

    @cached_property
    def _others(self) -> tuple[re.Pattern[str], str] | None:
        """What finds the numbers that are not in the table, and one of them.

        None if a part of the table fits some numbers and not others. Any other part that is no
        number itself has a letter, and fits none, or is ``*``, which fits all.
        """
        if any("*" in part and part.replace("*", "").isdigit() for part in self._parts):
            return None
        stated = self._stated
        but = f"(?!(?:{'|'.join(stated)})(?![^.]))" if stated else ""
        other = next(one for one in map(str, itertools.count()) if one not in stated)
        return re.compile(rf"(?<![^.]){but}\d+(?![^.])"), other

    @cached_property
    def _stated(self) -> list[str]:
        """The numbers in the table."""
        return sorted(filter(str.isdigit, self._parts))

    @cached_property
    def _parts(self) -> set[str]:
        """The parts of all paths in the table."""
        ends = (*self.roles, *self.fused, *self.transposed, *self.ignored, *self.axes)
        return {part for end in ends for part in end.split(".")}

    @cached_property
    def _remembered(self) -> dict[str, Said]:
        return {}

    @cached_property
    def _roles(self) -> list[tuple[re.Pattern[str], str]]:
        return [(_ending(end), role) for end, role in self.roles.items()]

    @cached_property
    def _fused(self) -> list[tuple[re.Pattern[str], Fused]]:
        return [(_ending(end), fused) for end, fused in self.fused.items()]

    @cached_property
    def _axes(self) -> list[tuple[re.Pattern[str], tuple[str, ...]]]:
        return [(_ending(end), axes) for end, axes in self.axes.items()]

    @cached_property
    def _transposed(self) -> list[re.Pattern[str]]:
        return [_ending(end) for end in self.transposed]

    @cached_property
    def _ignored(self) -> re.Pattern[str]:
        parts = "|".join(map(_globbed, self.ignored))
        return re.compile(rf"(^|\.)({parts})(\.|$)")


def ends_with(module: str, end: str) -> bool:
    """Whether the path of a module ends with these parts."""
    return bool(_ending(end).fullmatch(module))


def _first(found: Iterable[tuple[re.Match[str] | None, T]]) -> tuple[T | None, bool]:
    """What belongs to the first end that matches; and whether attention to an encoder is before."""
    for match, one in found:
        if match is not None:
            return one, bool(CROSSING.search(match[1] or ""))
    return None, False


@cache
def _ending(end: str) -> re.Pattern[str]:
    return re.compile(rf"(.*\.)?{_globbed(end)}")


def _globbed(text: str) -> str:
    """Regular expression in which ``*`` stands for anything within one part of a path."""
    return re.escape(text).replace(r"\*", r"[^.]*")
