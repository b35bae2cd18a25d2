"""Configuration files: TOML in and out, ``section.key=value`` overrides, differences."""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_type_hints

from rankscope.errors import RankscopeError
from rankscope.training.config import Config

# Changing these in the middle of a run does not change what is learned. The data may have moved:
# a hash of the tokens is compared on its own.
FREE_TO_CHANGE = frozenset(
    {"out", "device", "data.source", "log.log_every", "log.eval_every", "log.save_every"}
)
_KINDS: dict[type, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
    tuple: "a list of strings",
}


def load_config(path: Path, *, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration.

    Parameters
    ----------
    path
        A TOML file. Keys that it leaves out keep their defaults.
    overrides
        ``key=value`` with dotted keys, as ``schedule.steps=200``; later ones win.

    Raises
    ------
    RankscopeError
        If the file cannot be read, or a key or value is not one that a run can have.
    """
    try:
        values = _flatten(tomllib.loads(path.read_text(encoding="utf-8")))
        return config_from(values | dict(map(_parse_override, overrides)))
    except OSError as error:
        raise RankscopeError(f"cannot be read: {error.strerror}", path=path) from None
    except ValueError as error:  # not TOML, or not even text
        raise RankscopeError(f"is not a TOML file: {error}", path=path) from None
    except RankscopeError as error:
        raise RankscopeError(error.message, path=path) from None


def config_from(values: Mapping[str, object]) -> Config:
    """Build a configuration from dotted keys; unknown keys and wrong types are errors."""
    known = flat_config(Config())
    for key in values:
        if key not in known:
            raise RankscopeError(f"there is no setting {key!r}{_did_you_mean(key, list(known))}")
    tree: dict[str, Any] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        table = tree.setdefault(section, {}) if section else tree
        table[name] = _checked(key, value, type(known[key]))
    sections = get_type_hints(Config)
    return Config(**{k: sections[k](**v) if isinstance(v, dict) else v for k, v in tree.items()})


def flat_config(config: Config) -> dict[str, object]:
    """Every setting by its dotted key."""
    return _flatten(asdict(config))


def differences(old: Config, new: Config) -> list[str]:
    """One sentence for each setting that decides what is learned and is not the same."""
    before, after = flat_config(old), flat_config(new)
    return [
        f"{key} was {before[key]!r} and is now {after[key]!r}"
        for key in before
        if key not in FREE_TO_CHANGE and before[key] != after[key]
    ]


def to_toml(config: Config) -> str:
    """Write a configuration as TOML that `load_config` reads back to an equal one."""
    tree = asdict(config)
    lines = [f"{k} = {_toml(v)}" for k, v in tree.items() if not isinstance(v, dict)]
    for section, table in tree.items():
        if isinstance(table, dict):
            lines += ["", f"[{section}]", *(f"{k} = {_toml(v)}" for k, v in table.items())]
    return "\n".join(lines) + "\n"


def config_digest(config: Config) -> str:
    """Hash of all settings that decide what is learned."""
    settings = {k: v for k, v in flat_config(config).items() if k not in FREE_TO_CHANGE}
    return hashlib.blake2b(json.dumps(settings).encode(), digest_size=16).hexdigest()


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _parse_override(text: str) -> tuple[str, object]:
    key, equals, value = text.partition("=")
    if not equals:
        raise RankscopeError(f"the override {text!r} is not of the form key=value")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value.strip()  # a plain word, as in method=full


def _checked(key: str, value: object, expected: type) -> object:
    """Return the value in the setting's type, where nothing is lost by that."""
    if expected is tuple and isinstance(value, list) and all(isinstance(v, str) for v in value):
        return tuple(value)
    if expected is float and type(value) is int:
        return float(value)
    if type(value) is not expected:
        raise RankscopeError(f"{key} = {value!r} must be {_KINDS[expected]}")
    return value


def _did_you_mean(key: str, known: Sequence[str]) -> str:
    same_name = [k for k in known if k.rpartition(".")[2] == key.rpartition(".")[2]]
    close = same_name or difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _toml(value: object) -> str:
    if isinstance(value, str):
        return json.dumps(value).replace("\x7f", "\\u007f")
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else repr(value)
