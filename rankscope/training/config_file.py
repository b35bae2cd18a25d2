"""Configuration files: TOML in and out, ``section.key=value`` overrides, differences."""

from __future__ import annotations

import difflib
import hashlib
import json
import tomllib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from rankscope.errors import RankscopeWarning, WrongSettingError
from rankscope.training.config import PROGRAMS, Config

# Changing these in the middle of a run does not change what is learned. The data may have moved,
# since a hash of the tokens is compared separately.
FREE_TO_CHANGE = frozenset(
    {"out", "device", "data.source"}
    | {f"log.{key}" for key in ("log_every", "eval_every", "save_every", "save_log_spaced")}
    | {f"log.{key}" for key in ("save_before_restarts", "keep_last", "keep_every")}
    | {f"log.{key}" for key in ("blimp", "blimp_pairs", "blimp_every", "tensorboard", "wandb")}
)
# What only some methods use: beginnings of dotted keys.
_OF_RESTARTS = (
    "schedule.restart_every",
    "schedule.restart_warmup_steps",
    "relora.rank_policy",
    "relora.published.zero_factors",
    "relora.published.factors_survive",
    "relora.published.pruned_moments",
)
_UNUSED = {
    "full": ("phases.", "adapter.", "relora.", *_OF_RESTARTS),
    "lora": ("phases.", *_OF_RESTARTS),
    "relora": ("phases.",),
}
_KINDS = {bool: "true or false", int: "an integer", float: "a number", str: "a string"}


def load_config(path: Path, *, overrides: Sequence[str] = ()) -> Config:
    """Read a configuration.

    Parameters
    ----------
    path
        A TOML file. Settings that it leaves out keep their defaults. One that begins with
        ``base = "OTHER.toml"``, a file beside it, says only what differs from that: it changes the
        other's settings as ``overrides`` would.
    overrides
        ``key=value`` with dotted keys, such as ``schedule.steps=200``; later ones win. Another
        ``method`` than the file's drops what only the file's method uses, with a warning.

    Raises
    ------
    WrongSettingError
        If the file cannot be read, a setting is unknown or has an impossible value, or settings
        contradict each other.
    """
    try:
        values = _settings_in(path)
        chosen = _with_published(dict(map(_parse_override, overrides)))
        changed, unused = _changed(values, chosen)
        config = config_from(changed)
    except WrongSettingError as error:
        raise WrongSettingError(error.message, path=error.path or path) from None
    if unused:
        message = f"{path}: method = {config.method!r} does not use its {', '.join(unused)}"
        warnings.warn(message, RankscopeWarning, stacklevel=2)
    return config


def _settings_in(path: Path, *, over: tuple[Path, ...] = ()) -> dict[str, object]:
    """Settings of a file by their dotted keys, with those of the file that it is based on.

    Parameters
    ----------
    path
        The file.
    over
        Files that are based on it.
    """
    try:
        values = _flatten(tomllib.loads(path.read_text(encoding="utf-8")))
        own = _with_published(values)
    except OSError as error:
        raise WrongSettingError(f"cannot be read: {error.strerror}", path=path) from None
    except ValueError as error:  # not TOML, or not even text
        raise WrongSettingError(f"is not a TOML file: {error}", path=path) from None
    base = own.pop("base", None)
    if base is None:
        return own
    if not isinstance(base, str):
        raise WrongSettingError(f"base = {base!r} must be the name of a file", path=path)
    files = (*over, path.resolve())
    other = path.parent / base
    if other.resolve() in files:
        raise WrongSettingError(f"base = {base!r} is based on this file itself", path=path)
    return _changed(_settings_in(other, over=files), own)[0]


def _changed(
    values: Mapping[str, object], chosen: Mapping[str, object]
) -> tuple[dict[str, object], list[str]]:
    """Settings of a file with others in their place, and those that the method does not use."""
    unused = [key for key in values if _is_unused(key, values, chosen)]
    return {key: value for key, value in values.items() if key not in unused} | {**chosen}, unused


def config_from(values: Mapping[str, object]) -> Config:
    """Build a configuration from dotted keys; unknown keys and wrong types are errors.

    ``relora.published`` may be the name of a program, which sets all of its switches; those that
    are given too win.
    """
    known = flat_config(Config())
    values = _with_published(values)
    for key in values:
        if key not in known:
            message = f"unknown setting {key!r}{_did_you_mean(key, list(known))}"
            raise WrongSettingError(message)
    config: Config = _built(Config, values, "")
    return config


def _with_published(values: Mapping[str, object]) -> dict[str, object]:
    """Replace the name of a published program by its switches."""
    rest = dict(values)
    if (program := rest.pop("relora.published", None)) is None:
        return rest
    if program not in PROGRAMS:
        raise WrongSettingError(
            f"relora.published = {program!r} is unknown: choose from {', '.join(PROGRAMS)}, or set "
            "single switches, such as relora.published.dropout = 0.1"
        )
    switches = asdict(PROGRAMS[str(program)])
    return {f"relora.published.{key}": value for key, value in switches.items()} | rest


def _is_unused(key: str, values: Mapping[str, object], chosen: Mapping[str, object]) -> bool:
    """Whether a method is chosen instead of the file's, and does not use this key of the file."""
    method = chosen.get("method", "")
    is_other = method != values.get("method", Config.method)
    return is_other and key not in chosen and key.startswith(_UNUSED.get(str(method), ()))


def flat_config(config: Config) -> dict[str, object]:
    """Every setting by its dotted key."""
    return _flatten(asdict(config))


def differences(old: Config, new: Config) -> list[str]:
    """One sentence per changed setting, of those that decide what is learned."""
    before, after = flat_config(old), flat_config(new)
    return [
        f"{key} was {before[key]!r} and is now {after[key]!r}"
        for key in before
        if key not in FREE_TO_CHANGE and before[key] != after[key]
    ]


def to_toml(config: Config) -> str:
    """The configuration as TOML, which `load_config` reads back to an equal one."""
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
        raise WrongSettingError(f"{text!r} is not of the form key=value")
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


def _checked(key: str, value: Any, expected: Any) -> object:
    """The value in the type of the setting, if it can be converted without loss."""
    is_list = get_origin(expected) is tuple
    plain = _plain(get_args(expected)[0] if is_list else expected)
    if isinstance(value, list) == is_list:
        items = [_converted(item, plain) for item in (value if is_list else [value])]
        if all(type(item) is plain for item in items):
            return tuple(items) if is_list else items[0]
    kind = f"a list of {_KINDS[plain].split()[-1]}s" if is_list else _KINDS[plain]
    raise WrongSettingError(f"{key} = {value!r} must be {kind}")


def _plain(expected: Any) -> type:
    """The type without its vocabulary, which the dataclasses check."""
    plain: type = str if get_origin(expected) in (Literal, Union) else expected
    return plain


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
    """Lines of a table: its own settings first, as TOML requires, then the tables inside it."""
    own = {key: value for key, value in table.items() if not isinstance(value, dict)}
    lines = ["", f"[{prefix[:-1]}]"] if prefix and own else []
    lines += [f"{key} = {_toml(value)}" for key, value in own.items()]
    for key, value in table.items():
        if isinstance(value, dict):
            lines += _toml_lines(value, f"{prefix}{key}.")
    return lines
