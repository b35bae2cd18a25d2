"""Configuration files: TOML in and out, ``section.key=value`` overrides, differences."""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from rankscope.errors import RankscopeError
from rankscope.training.config import Config

# Changing these in the middle of a run does not change what is learned. The data may have moved:
# a hash of the tokens is compared on its own.
FREE_TO_CHANGE = frozenset(
    {"out", "device", "data.source"}
    | {f"log.{key}" for key in ("log_every", "eval_every", "save_every", "save_log_spaced")}
    | {f"log.{key}" for key in ("save_before_restarts", "keep_last", "keep_every")}
    | {f"log.{key}" for key in ("blimp", "blimp_pairs", "blimp_every", "tensorboard", "wandb")}
)
_KINDS: dict[Any, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
    tuple[str, ...]: "a list of strings",
    tuple[int, ...]: "a list of integers",
    tuple[float, ...]: "a list of numbers",
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
    config: Config = _built(Config, values, "")
    return config


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
    return "\n".join(_toml_lines(asdict(config), "")).lstrip("\n") + "\n"


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


def _built(kind: Any, values: Mapping[str, object], prefix: str) -> Any:
    """Build a dataclass, and those inside it, from the dotted keys that begin with ``prefix``."""
    settings: dict[str, Any] = {}
    for name, expected in get_type_hints(kind).items():
        if is_dataclass(expected):
            settings[name] = _built(expected, values, f"{prefix}{name}.")
        elif (key := prefix + name) in values:
            settings[name] = _checked(key, values[key], expected)
    return kind(**settings)


def _checked(key: str, value: object, expected: Any) -> object:
    """Return the value in the setting's type, where nothing is lost by that."""
    if isinstance(value, list) and (inner := get_args(expected)):
        converted = [_converted(item, inner[0]) for item in value]
        if all(type(item) is inner[0] for item in converted):
            return tuple(converted)
    elif type(converted_value := _converted(value, expected)) is expected:
        return converted_value
    raise RankscopeError(f"{key} = {value!r} must be {_KINDS[expected]}")


def _converted(value: object, expected: Any) -> object:
    """An integer is a number; nothing else is converted."""
    return float(value) if expected is float and type(value) is int else value


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


def _toml_lines(table: Mapping[str, Any], prefix: str) -> list[str]:
    """Lines of a table: its own settings first, as TOML wants it, then the tables inside it."""
    own = {key: value for key, value in table.items() if not isinstance(value, dict)}
    lines = ["", f"[{prefix[:-1]}]"] if prefix and own else []
    lines += [f"{key} = {_toml(value)}" for key, value in own.items()]
    for key, value in table.items():
        if isinstance(value, dict):
            lines += _toml_lines(value, f"{prefix}{key}.")
    return lines
