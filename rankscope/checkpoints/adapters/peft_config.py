"""What a PEFT ``adapter_config.json`` says about how its factors change the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankscope.checkpoints.adapters.name_patterns import REASON, NamePatterns, Steps
from rankscope.checkpoints.files.config_files import read_json
from rankscope.errors import RankscopeError, printable

CONFIG = "adapter_config.json"
# Types whose delta can be computed exactly.
READ = ("LORA", "ADALORA", "VERA", "LOKR", "LOHA")
# Entries that replace B·A by something else.
OTHER_DELTAS = {
    "use_qalora": "QALoRA",
    "use_bdlora": "block-diagonal LoRA",
    "kasa_config": "KaSA",
    "arrow_config": "Arrow",
}
# Initialisations that change the weights of the base, which are not saved.
CHANGED_BASES = ("pissa", "olora", "corda", "loftq", "lora_ga")


def read_config(folder: Path) -> dict[str, Any]:
    """Read the config of an adapter; empty if there is no file.

    Raises
    ------
    RankscopeError
        If the file is damaged, belongs to an adapter whose delta is not read here, or has an alpha
        that is not a number or a pattern that is not a regular expression.
    """
    path = folder / CONFIG
    config = read_json(path)
    try:
        require_readable(config)
        return with_patterns(config) if config else config
    except RankscopeError as error:
        raise RankscopeError(error.message, path=path, reason=error.reason) from None


def require_readable(config: Mapping[str, Any]) -> None:
    """Raise `RankscopeError` if the delta of an adapter with this config is not read here."""
    kind = config.get("peft_type", "LORA")
    if kind not in READ:
        raise RankscopeError(
            f"is a PEFT adapter of type {printable(str(kind), limit=40)}, which is not read; types "
            f"that are: {', '.join(READ)}",
            reason="adapter-type",
        )
    for entry, name in OTHER_DELTAS.items():
        if config.get(entry):
            raise RankscopeError(f"is a LoRA of the kind {name}, whose delta is not B·A")


def change_of_base(config: Mapping[str, Any]) -> tuple[str, str] | None:
    """Why the weights are not base plus B·A, as a code and in words; None if they are."""
    start = config.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(CHANGED_BASES):
        return (
            "adapter-init",
            f"init_lora_weights is {start!r}, which changes the base's weights at the start: only "
            "B·A is read, and the weight is not known",
        )
    if config.get("alora_invocation_tokens"):
        return (
            "activated-lora",
            "an activated LoRA adds its delta only after its invocation tokens: only the delta is "
            "read",
        )
    if config.get("layer_replication"):
        return (
            "layer-replication",
            "its layers are copies that layer_replication makes: only the delta is read",
        )
    return None


def is_stack(config: Mapping[str, Any], module: str, *, rank: int) -> bool:
    """Whether the factors of a module are those of several experts (``target_parameters``).

    PEFT then stores the factors of all experts in one tensor, under the name of the module that
    holds the parameter; a second parameter of the module is under ``base_layer``.
    """
    if not config.get("target_parameters"):
        return False
    path = _targeted(config, module)
    is_named = path not in (module, f"{module}.weight")
    # A target without its module, such as `down_proj`, shows in factors that are too large.
    return is_named or rank != by_pattern(config, "rank_pattern", path, config.get("r"))


def _targeted(config: Mapping[str, Any], module: str) -> str:
    """Path that patterns are matched with: that of the module or of its targeted parameter."""
    targets = config.get("target_parameters")
    if not isinstance(targets, Mapping):
        targets = _by_holder(targets)
    path = module.replace(".base_layer", "")
    ends = (path, *(path[i + 1 :] for i, letter in enumerate(path) if letter == "."))
    found = min((targets[end] for end in ends if end in targets), default=None)
    return module if found is None else f"{module}.{found[1]}"


def _by_holder(targets: object) -> dict[str, tuple[int, str]]:
    """Place in the list and last part of the first targeted parameter, by the rest of its path."""
    found: dict[str, tuple[int, str]] = {}
    for place, target in enumerate(targets if isinstance(targets, list) else ()):
        holder, _, own = str(target).rpartition(".")
        found.setdefault(holder, (place, own))
    return found


def scale_of(config: Mapping[str, Any], module: str, *, rank: int) -> float | None:
    """Factor of B·A in the model's function: alpha/r, or alpha/√r for rank-stabilised LoRA.

    The rank is that of the stored factor. None if the config does not state alpha, or if it states
    another rank: PEFT refuses such an adapter, and nothing says which of the two it was trained
    with.
    """
    path = _targeted(config, module)
    alpha = by_pattern(config, "alpha_pattern", path, config.get("lora_alpha"))
    stated = by_pattern(config, "rank_pattern", path, config.get("r", rank))
    if alpha is None or str(stated) != str(rank):  # headers have numbers as text
        return None
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def by_pattern(config: Mapping[str, Any], patterns: str, path: str, default: Any) -> Any:
    """Value of the first pattern of a table that fits the end of a path, as PEFT looks it up.

    Of a config that `with_patterns` made, the tables are prepared once for all modules.
    """
    stated = config.get(patterns)
    if isinstance(stated, Mapping):
        stated = NamePatterns(stated)
    return stated.value(path, default) if isinstance(stated, NamePatterns) else default


def with_patterns(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config with tables of patterns that `by_pattern` looks up; its numbers are checked.

    Raises
    ------
    RankscopeError
        With the reason ``adapter-config``, if an alpha is not a number, or a pattern is not a
        regular expression or not one that can be matched in bounded time.
    """
    alphas = {name: config[name] for name in ("lora_alpha", "alpha") if name in config}
    made, steps = dict(config), Steps()
    if "target_parameters" in config:
        made["target_parameters"] = _by_holder(config["target_parameters"])
    for entry in ("rank_pattern", "alpha_pattern"):
        patterns = config.get(entry) or {}
        if not isinstance(patterns, dict):
            raise RankscopeError(f"{entry} is not a table", reason=REASON)
        alphas |= patterns if entry == "alpha_pattern" else {}
        try:
            made[entry] = NamePatterns(patterns, steps)
        except RankscopeError as error:
            message = f"in its {entry}, {error.message}"
            raise RankscopeError(message, reason=error.reason) from None
    for name, alpha in alphas.items():
        if finite(alpha) is None:
            shown = f"{printable(name, limit=60)} is {printable(repr(alpha), limit=40)}"
            raise RankscopeError(f"{shown}, not a number", reason=REASON)
    return made


def finite(value: object) -> float | None:
    """A number of a file as floating-point; None if it is none, is not finite or is too large."""
    if type(value) not in (int, float):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
