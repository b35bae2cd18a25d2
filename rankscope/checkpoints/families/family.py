"""`Family`: what the parameters of a kind of model are called, and how they are stored."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from rankscope.checkpoints.families.factor_tables import FactorTable, parsed_tables
from rankscope.checkpoints.families.names import ROLES
from rankscope.errors import RankscopeError

GENERIC = "generic"  # the family of whatever no other fits
SPLITS = ("blocks", "heads", "groups", "alternate")
LISTS = ("model_types", "keys", "unless", "wide", "tall", "transposed", "ignored")
TABLES = ("when", "config", "roles", "fused", "factors")
STATED = ("heads", "kv_heads", "head_size", "width")

# Two-dimensional tensors that are no linear map, in whatever family.
NO_MAPS = (
    *("wpe", "embed_positions", "positions_embed", "position_embeddings", "token_type_embeddings"),
    *("relative_attention_bias", "rel_embeddings", "rotary_emb", "inv_freq", "A_log", "conv1d"),
    *("attn.bias", "attention.bias", "masked_bias"),  # causal masks, which GPT-2 used to store
)
INDEX = re.compile(r"(?<=\.)\d+(?=\.)")  # of a layer or an expert
# Only where it is the last part, so that what lies in ``norm_attn_norm`` is kept.
NORM = re.compile(r"(.*\.)?[^.]*norm[^.]*(\.(scale|gamma|g))?", re.IGNORECASE)


@dataclass(frozen=True)
class Fused:
    """How one stored matrix holds several, one below the other.

    Attributes
    ----------
    parts
        Roles, in the order of their rows.
    split
        ``blocks``: all rows of the first part, then all of the next. ``heads``: the rows of each
        head hold one block of every part. ``groups``: the rows of each key-value head hold its
        queries, then its key, then its value. ``alternate``: rows take turns.
    times
        How often the whole pattern is repeated down the rows.
    """

    parts: tuple[str, ...]
    split: str = "blocks"
    times: int = 1


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
    roles
        End of a module path → role. ``*`` stands for one part of the path; the first that fits is
        taken.
    fused
        End of a module path → how it is split.
    transposed
        Ends of module paths whose tensors are stored (inputs, outputs).
    ignored
        Parts of paths, as patterns, of two-dimensional tensors that are no linear map.
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

    def ignores(self, module: str) -> bool:
        """Whether a module is no linear map."""
        return bool(NORM.fullmatch(module) or self._ignored.search(module))

    @cached_property
    def _roles(self) -> list[tuple[re.Pattern[str], str]]:
        return [(_ending(end), role) for end, role in self.roles.items()]

    @cached_property
    def _fused(self) -> list[tuple[re.Pattern[str], Fused]]:
        return [(_ending(end), fused) for end, fused in self.fused.items()]

    @cached_property
    def _transposed(self) -> list[re.Pattern[str]]:
        return [_ending(end) for end in self.transposed]

    @cached_property
    def _ignored(self) -> re.Pattern[str]:
        parts = "|".join(map(_globbed, (*self.ignored, *NO_MAPS)))
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
    found.sort(key=lambda f: (-len(f.when), -len((*f.wide, *f.tall)), -len(f.keys)))
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
        raise RankscopeError(f"{str(given)!r} is no family and no file: known are {known}")
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
        factors=parsed_tables(table.get("factors", {}), fault),
        **{entry: tuple(table.get(entry, ())) for entry in LISTS},
    )


def _fused(end: str, entry: Any, fault: Any) -> Fused:
    if not isinstance(entry, Mapping) or not _is_list_of_text(entry.get("parts")):
        raise fault(f"fused {end!r} needs parts, a list of roles")
    if entry.keys() - {"parts", "split", "times"}:
        raise fault(f"fused {end!r} has entries besides parts, split and times")
    parts, split, times = tuple(entry["parts"]), entry.get("split", "blocks"), entry.get("times", 1)
    if not parts or len(set(parts)) < len(parts) or not set(parts) <= set(ROLES):
        raise fault(f"fused {end!r}: parts are roles, each once: known are {', '.join(ROLES)}")
    if split not in SPLITS or type(times) is not int or times < 1:
        raise fault(
            f"fused {end!r}: split is one of {', '.join(SPLITS)}, times a whole number from 1"
        )
    if split == "groups" and set(parts) != {"q", "k", "v"}:
        raise fault(f"fused {end!r}: groups are of q, k and v")
    return Fused(parts, split, times)


def _is_list_of_text(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


def family_of(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Family:
    """The family of a model, by its config, else by the names and shapes of its tensors.

    Parameters
    ----------
    config
        Its ``config.json`` or what stands for it; empty where there is none.
    shapes
        Shape of the tensor of each module.

    Returns
    -------
    The family; of several that fit, the one that asks for most. The one called ``generic``, which
    knows the common names, where none fits.
    """
    shapes = {INDEX.sub("0", module): shape for module, shape in shapes.items()}  # one layer of all
    stated = config.get("model_type")
    agreeing = [f for f in families().values() if _agrees(f, config)]
    by_type = [f for f in agreeing if stated in f.model_types and _has_shapes(f, shapes)]
    for family in by_type or agreeing:
        if _has_keys(family, shapes) and _has_shapes(family, shapes):
            return family
    return by_type[0] if by_type else families()[GENERIC]


def _agrees(family: Family, config: Mapping[str, Any]) -> bool:
    return all(config.get(key, False) == value for key, value in family.when.items())


def _held(end: str, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
    return (shape for module, shape in shapes.items() if ends_with(module, end))


def _has_keys(family: Family, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether there are keys, and every one occurs, and none that must not."""
    return (
        bool(family.keys)
        and all(any(_held(end, shapes)) for end in family.keys)
        and not any(any(_held(end, shapes)) for end in family.unless)
    )


def _has_shapes(family: Family, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether what is to be wide or tall is, where it occurs."""
    return all(
        all(shape[-1] > shape[0] for shape in _held(end, shapes)) for end in family.wide
    ) and all(all(shape[-1] < shape[0] for shape in _held(end, shapes)) for end in family.tall)
