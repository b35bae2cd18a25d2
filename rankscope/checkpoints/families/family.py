"""`Family`: what the parameters of a kind of model are called, and how they are stored."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from rankscope.checkpoints.families.factor_tables import FactorTable, parsed_tables
from rankscope.checkpoints.families.names import ROLES
from rankscope.errors import RankscopeError, WrongSettingError

GENERIC = "generic"  # the family of whatever no other fits
SPLITS = ("blocks", "heads", "groups", "alternate", "equal", "flat")
LISTS = ("model_types", "keys", "unless", "wide", "tall", "transposed", "ignored")
TABLES = ("when", "config", "roles", "fused", "axes", "twice", "factors")
STATED = ("heads", "kv_heads", "head_size", "width")
SIDES, INDICES = ("out", "in"), ("layer", "expert", "part")  # what an axis of a tensor may be


@dataclass(frozen=True)
class Fused:
    """How one stored matrix holds several, one below the other.

    Attributes
    ----------
    parts
        Roles, in the order of their rows.
    split
        ``blocks``: all rows of the first part, then all of the next. ``equal``: the same where all
        have the same number of rows, whatever the heads. ``flat``: the same of the elements, where
        the stored matrix is wide. ``heads``: the rows of each head hold one block of every part.
        ``groups``: the rows of each key-value head hold its queries, then its key, then its value.
        ``alternate``: rows take turns.
    times
        How often the whole pattern is repeated down the rows.
    role
        What all parts are in tables, where they are none of the layer's own q, k and v, as in
        attention to an encoder. Empty for their own.
    """

    parts: tuple[str, ...]
    split: str = "blocks"
    times: int = 1
    role: str = ""


@dataclass(frozen=True)
class Family:
    """The table of a kind of model; see the pages in ``docs`` on adding one.

    Attributes
    ----------
    name, description
        What it is called, and what has it.
    model_types
        Values of ``model_type`` in ``config.json``.
    when
        Entries that the config has besides; one that it lacks counts as false.
    keys
        Ends of module paths by which it is known where no config tells: all must occur.
    unless
        Ends of module paths of which none may occur then.
    wide, tall
        Ends of module paths whose tensors have more columns than rows, or more rows than columns.
    twice
        End of a module path → that of another: the first has twice as many outputs as the second
        has inputs, as a gate and an up in one have before the down.
    roles
        End of a module path → role. ``*`` stands for one part of the path; the first that fits is
        taken.
    fused
        End of a module path → how it is split.
    axes
        End of a module path → what the axes of its tensor are, where it has more than two: ``out``
        and ``in``, each maybe several, which are joined in their order; and ``layer``, ``expert``
        or ``part``, which number matrices. Parts have the roles that ``fused`` gives.
    transposed
        Ends of module paths whose tensors are stored (inputs, outputs).
    ignored
        Parts of paths, as patterns, of tensors with several axes that are not a linear map.
    config
        What the config calls ``heads``, ``kv_heads``, ``head_size`` and ``width``.
    factors
        Tensors that make one matrix, besides those that are known in every family.
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

    def role_of(self, module: str) -> str:
        """Role of a module; ``other`` where the table does not know it."""
        return next((role for end, role in self._roles if end.fullmatch(module)), "other")

    def fused_in(self, module: str) -> Fused | None:
        """How the tensor of a module is split, if it is."""
        return next((fused for end, fused in self._fused if end.fullmatch(module)), None)

    def is_transposed(self, module: str) -> bool:
        """Whether the tensor of a module is stored (inputs, outputs)."""
        return any(end.fullmatch(module) for end in self._transposed)

    def axes_of(self, module: str, count: int) -> tuple[str, ...] | None:
        """What so many axes of the tensor of a module are; None where the table does not say."""
        return next(
            (axes for end, axes in self._axes if len(axes) == count and end.fullmatch(module)), None
        )

    def ignores(self, module: str) -> bool:
        """Whether the table says that a module is not a linear map."""
        return bool(self.ignored) and bool(self._ignored.search(module))

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


@cache
def _ending(end: str) -> re.Pattern[str]:
    return re.compile(rf"(.*\.)?{_globbed(end)}")


def _globbed(text: str) -> str:
    """Regular expression in which ``*`` stands for anything within one part of a path."""
    return re.escape(text).replace(r"\*", r"[^.]*")


@cache
def families() -> Mapping[str, Family]:
    """Every family that comes with rankscope, by name; those that need more to fit come first."""
    folder = resources.files("rankscope.checkpoints.families") / "data"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    found = [parsed(tomllib.loads(file.read_text("utf-8")), file.name) for file in files]
    found.sort(key=lambda f: (-len(f.when), -len((*f.wide, *f.tall, *f.twice)), -len(f.keys)))
    return {family.name: family for family in found}


def read_family(given: str | Path) -> Family:
    """A family that comes with rankscope, by name; or one from a TOML file.

    Raises
    ------
    RankscopeError
        If there is neither such a family nor such a file, or the file is not a family's table.
    """
    if str(given) in families():
        return families()[str(given)]
    path = Path(given)
    if not path.is_file():
        known = ", ".join(sorted(families()))
        message = f"{str(given)!r} is neither a family nor a file: choose from {known}"
        raise WrongSettingError(message)
    try:
        return parsed(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RankscopeError(f"is not valid TOML ({error})", path=path) from None


def parsed(table: Mapping[str, Any], path: str) -> Family:
    """Family of a TOML table.

    Raises
    ------
    RankscopeError
        If the table has an entry that no family has, or one of the wrong kind.
    """

    def fault(message: str) -> RankscopeError:
        return RankscopeError(message, path=path)

    unknown = table.keys() - {"name", "description", *LISTS, *TABLES}
    if unknown:
        raise fault(f"a family has no {', '.join(sorted(unknown))}")
    if not isinstance(table.get("name"), str) or not table["name"]:
        raise fault("a family needs a name")
    for entry in LISTS:
        if not _is_list_of_text(table.get(entry, [])):
            raise fault(f"{entry} must be a list of strings")
    for entry in TABLES:
        if not isinstance(table.get(entry, {}), Mapping):
            raise fault(f"{entry} must be a table")
    for end, role in table.get("roles", {}).items():
        if role not in ROLES:
            raise fault(f"the role of {end!r} is {role!r}: known are {', '.join(ROLES)}")
    if not all(isinstance(end, str) for end in table.get("twice", {}).values()):
        raise fault("every entry of twice must be the end of a module path")
    config = table.get("config", {})
    if not all(_is_list_of_text(names) for names in config.values()):
        raise fault("every entry of config must be a list of strings")
    if config.keys() - set(STATED):
        raise fault(f"config has entries besides {', '.join(STATED)}")
    return Family(
        name=table["name"],
        description=str(table.get("description", "")),
        when=table.get("when", {}),
        config={key: tuple(names) for key, names in config.items()},
        roles=table.get("roles", {}),
        fused={end: _fused(end, entry, fault) for end, entry in table.get("fused", {}).items()},
        axes={end: _axes(end, entry, fault) for end, entry in table.get("axes", {}).items()},
        twice=table.get("twice", {}),
        factors=parsed_tables(table.get("factors", {}), fault),
        **{entry: tuple(table.get(entry, ())) for entry in LISTS},
    )


def _fused(end: str, entry: Any, fault: Any) -> Fused:
    if not isinstance(entry, Mapping) or not _is_list_of_text(entry.get("parts")):
        raise fault(f"fused {end!r} needs parts, a list of roles")
    if entry.keys() - {"parts", "split", "times", "role"}:
        raise fault(f"fused {end!r} has entries besides parts, split, times and role")
    parts, split, times = tuple(entry["parts"]), entry.get("split", "blocks"), entry.get("times", 1)
    if not parts or len(set(parts)) < len(parts) or not set(parts) <= set(ROLES):
        raise fault(f"fused {end!r}: parts are roles, each once: known are {', '.join(ROLES)}")
    if split not in SPLITS or type(times) is not int or times < 1:
        raise fault(
            f"fused {end!r}: split is one of {', '.join(SPLITS)}, times a whole number from 1"
        )
    if split == "groups" and set(parts) != {"q", "k", "v"}:
        raise fault(f"fused {end!r}: groups are of q, k and v")
    if entry.get("role", "other") not in ROLES:
        raise fault(f"fused {end!r}: role is one of {', '.join(ROLES)}")
    return Fused(parts, split, times, entry.get("role", ""))


def _axes(end: str, entry: Any, fault: Any) -> tuple[str, ...]:
    if not _is_list_of_text(entry) or not set(entry) <= {*SIDES, *INDICES}:
        raise fault(f"axes of {end!r} are a list of {', '.join((*SIDES, *INDICES))}")
    columns = [place for place, axis in enumerate(entry) if axis == "in"]
    if "out" not in entry or not columns or any(entry.count(axis) > 1 for axis in INDICES):
        raise fault(f"axes of {end!r} need out and in, and any other at most once")
    if columns[-1] - columns[0] >= len(columns):
        raise fault(f"axes of {end!r}: those of inputs must be neighbours")
    return tuple(entry)


def _is_list_of_text(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
