"""The families that come with rankscope, and those that a user describes: TOML files."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from rankscope.checkpoints.families.factor_tables import parsed_tables
from rankscope.checkpoints.families.family import Family, Fused, Split
from rankscope.checkpoints.families.names import ROLES
from rankscope.checkpoints.families.norm_tables import parsed_norms
from rankscope.errors import (
    DAMAGE,
    RankscopeError,
    WrongSettingError,
    closest_first,
    printable,
)

SPLITS: tuple[Split, ...] = get_args(Split)
LISTS = ("model_types", "keys", "unless", "wide", "tall", "transposed", "ignored")
TABLES = ("when", "config", "roles", "fused", "axes", "twice", "factors")
STATED = ("heads", "kv_heads", "head_size", "width")
SIDES, INDICES = ("out", "in"), ("layer", "expert", "part")  # what an axis of a tensor may be

Fault = Callable[[str], RankscopeError]


@cache
def families() -> Mapping[str, Family]:
    """Every family that comes with rankscope, by name, the most specific first."""
    folder = resources.files("rankscope.checkpoints.families") / "data"
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    found = [parsed(tomllib.loads(file.read_text("utf-8")), file.name) for file in files]
    found.sort(key=lambda f: (-len(f.when), -len((*f.wide, *f.tall, *f.twice)), -len(f.keys)))
    return {family.name: family for family in found}


def read_family(given: str | Path) -> Family:
    """A family that comes with rankscope, by name; or one from a TOML file.

    Raises
    ------
    WrongSettingError
        If there is neither such a family nor such a file.
    RankscopeError
        If the file is not the table of a family.
    """
    if str(given) in families():
        return families()[str(given)]
    path = Path(given)
    if not path.is_file():
        known = closest_first(str(given), sorted(families()))
        message = f"{str(given)!r} is neither a family nor a file: choose from {known}"
        raise WrongSettingError(message)
    try:
        return parsed(tomllib.loads(path.read_text(encoding="utf-8")), str(path))
    except (OSError, *DAMAGE) as error:
        why = printable(str(error), limit=120)
        raise RankscopeError(f"is not valid TOML ({why})", path=path) from None


def parsed(table: Mapping[str, Any], path: str) -> Family:
    """The family that a TOML table describes.

    Raises
    ------
    RankscopeError
        If the table has an unknown entry, or one of the wrong kind.
    """

    def fault(message: str) -> RankscopeError:
        return RankscopeError(message, path=path)

    _check(table, fault)
    return Family(
        name=table["name"],
        description=str(table.get("description", "")),
        when=table.get("when", {}),
        config={key: tuple(names) for key, names in table.get("config", {}).items()},
        roles=table.get("roles", {}),
        fused={end: _fused(end, entry, fault) for end, entry in table.get("fused", {}).items()},
        axes={end: _axes(end, entry, fault) for end, entry in table.get("axes", {}).items()},
        twice=table.get("twice", {}),
        factors=parsed_tables(table.get("factors", {}), fault),
        norms=parsed_norms(table.get("norms", []), fault),
        **{entry: tuple(table.get(entry, ())) for entry in LISTS},
    )


def _check(table: Mapping[str, Any], fault: Fault) -> None:
    """Refuse unknown entries, and values of the wrong kind."""
    unknown = table.keys() - {"name", "description", "norms", *LISTS, *TABLES}
    if unknown:
        raise fault(f"has unknown entries: {', '.join(sorted(unknown))}")
    if not isinstance(table.get("name"), str) or not table["name"]:
        raise fault("needs a name")
    for entry in LISTS:
        if not _is_list_of_text(table.get(entry, [])):
            raise fault(f"{entry} must be a list of strings")
    for entry in TABLES:
        if not isinstance(table.get(entry, {}), Mapping):
            raise fault(f"{entry} must be a table")
    for end, role in table.get("roles", {}).items():
        if role not in ROLES:
            raise fault(f"the role of {end!r} is {role!r}: choose from {', '.join(ROLES)}")
    if not all(isinstance(end, str) for end in table.get("twice", {}).values()):
        raise fault("every entry of twice must be the end of a module path")
    config = table.get("config", {})
    if not all(_is_list_of_text(names) for names in config.values()):
        raise fault("every entry of config must be a list of strings")
    if config.keys() - set(STATED):
        raise fault(f"config may only have {', '.join(STATED)}")


def _fused(end: str, entry: Any, fault: Fault) -> Fused:
    if not isinstance(entry, Mapping) or not _is_list_of_text(entry.get("parts")):
        raise fault(f"fused {end!r} needs parts, a list of roles")
    if entry.keys() - {"parts", "split", "times", "role"}:
        raise fault(f"fused {end!r} may only have parts, split, times and role")
    parts, split, times = tuple(entry["parts"]), entry.get("split", "blocks"), entry.get("times", 1)
    if not parts or len(set(parts)) < len(parts) or not set(parts) <= set(ROLES):
        raise fault(f"fused {end!r}: parts must be roles, each once: {', '.join(ROLES)}")
    if split not in SPLITS or type(times) is not int or times < 1:
        raise fault(
            f"fused {end!r}: split must be one of {', '.join(SPLITS)}, times a whole number from 1"
        )
    if split == "groups" and set(parts) != {"q", "k", "v"}:
        raise fault(f"fused {end!r}: the split groups needs the parts q, k and v")
    if entry.get("role", "other") not in ROLES:
        raise fault(f"fused {end!r}: role must be one of {', '.join(ROLES)}")
    return Fused(parts, split, times, entry.get("role", ""))


def _axes(end: str, entry: Any, fault: Fault) -> tuple[str, ...]:
    if not _is_list_of_text(entry) or not set(entry) <= {*SIDES, *INDICES}:
        raise fault(f"axes of {end!r} must be a list of {', '.join((*SIDES, *INDICES))}")
    columns = [index for index, axis in enumerate(entry) if axis == "in"]
    if "out" not in entry or not columns or any(entry.count(axis) > 1 for axis in INDICES):
        raise fault(f"axes of {end!r} must have out and in, and any other at most once")
    if columns[-1] - columns[0] >= len(columns):
        raise fault(f"axes of {end!r}: those called in must be neighbours")
    return tuple(entry)


def _is_list_of_text(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
