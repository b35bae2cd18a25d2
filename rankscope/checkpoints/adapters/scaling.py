"""The scale of a delta, as files beside the factors or headers state it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rankscope.checkpoints.adapters.composed_tensors import holds_whole_numbers, whole_numbers
from rankscope.checkpoints.adapters.peft_config import (
    by_pattern,
    finite,
    scale_of,
    with_patterns,
)
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.files.config_files import read_json
from rankscope.checkpoints.files.safetensors_file import read_notes
from rankscope.checkpoints.tensors import Tensor
from rankscope.errors import RankscopeError

Form = Literal["product", "adalora", "kronecker", "hadamard"]
FILES = ("adapter_config.json", "splora_config.json", "relora_config.json", "lora_config.json")
ALPHAS = ("lora_alpha", "alpha", "network_alpha", "ss_network_alpha")  # over r
INSIDE = "lora_adapter_metadata"  # of diffusers: a config in JSON, by part of the model


@dataclass(frozen=True)
class Scales:
    """What is stated about the scale of deltas.

    Attributes
    ----------
    config
        Entries as PEFT, MLX or a trainer call them.
    parts
        The same for modules whose path begins with the key.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    skips: tuple[Skip, ...] = ()

    def of(self, module: str, *, rank: int, form: Form = "product") -> float | None:
        """Scale of a delta of this inner dimension; None if nothing states it."""
        part, _, below = module.partition(".")
        config, path = (self.parts[part], below) if part in self.parts else (self.config, module)
        inner = config.get("lora_parameters")
        if isinstance(inner, Mapping):  # MLX
            scale, alpha = _number(inner.get("scale")), _number(inner.get("alpha"))
            return scale if scale is None or alpha is None else scale * alpha / rank
        numbers = (_number(config.get(name)) for name in ALPHAS)
        alpha = next((number for number in numbers if number is not None), None)
        if form == "product":
            stated = {} if alpha is None else {"lora_alpha": alpha}
            return scale_of({**config, **stated}, path, rank=rank)
        if form == "adalora":
            start = _number(config.get("init_r"))
            if start is None or alpha is None:
                return None
            return (alpha if alpha > 0 else start) / (start + 1e-5)
        alpha = _number(by_pattern(config, "alpha_pattern", path, alpha))
        stated_rank = _number(by_pattern(config, "rank_pattern", path, config.get("r")))
        return alpha / stated_rank if alpha is not None and stated_rank else None


def scales_beside(factors: Iterable[Tensor], config: Mapping[str, Any]) -> Scales:
    """What files beside the factors, their headers, or the model's config state about scales.

    The first of these that states anything counts. A damaged file counts as missing, with a skip.
    """
    skips: list[Skip] = []
    files = dict.fromkeys(path for factor in factors for path in factor.paths)
    for folder in dict.fromkeys(Path(path).parent for path in files):
        for name in FILES:
            found = _read(folder / name, skips)
            if _states(found):
                return Scales(found, skips=tuple(skips))
    for path in files:
        try:
            scales = _in_header(path)
        except RankscopeError as error:
            skips.append(Skip(path, "", error.reason, error.message))
            continue
        if _states(scales.config) or scales.parts:
            return Scales(scales.config, scales.parts, tuple(skips))
    return Scales(config if _states(config) else {}, skips=tuple(skips))


def scale_in(kind: str, tensor: Tensor, *, rank: int) -> float | None:
    """Scale that a tensor states as ``alpha``, ``scaling`` or ``tanh``; None if it is not a number.

    Raises
    ------
    RankscopeError
        If it cannot be read.
    """
    if math.prod(tensor.shape) != 1:
        return None
    read = whole_numbers(tensor) if holds_whole_numbers(tensor) else tensor.read()
    value = float(read.reshape(-1)[0])
    if not math.isfinite(value):
        return None
    return {"alpha": value / rank, "tanh": math.tanh(value), "scaling": value}[kind]


def _in_header(path: str) -> Scales:
    """What the header of a safetensors file states; nothing for other files."""
    if not path.endswith(".safetensors"):
        return Scales()
    try:
        notes: Mapping[str, Any] = read_notes(path)
    except (RankscopeError, AttributeError):
        return Scales()
    try:
        inside = json.loads(notes.get(INSIDE, "{}"))
    except (ValueError, RecursionError):
        inside = {}
    parts: dict[str, dict[str, Any]] = {}
    for key, value in inside.items() if isinstance(inside, Mapping) else ():
        part, _, entry = str(key).partition(".")
        parts.setdefault(part, {})[entry] = value
    return Scales(notes, {part: with_patterns(entries) for part, entries in parts.items()})


def _read(path: Path, skips: list[Skip]) -> dict[str, Any]:
    try:
        found = read_json(path)
        return with_patterns(found) if found else found
    except RankscopeError as error:
        skips.append(Skip(str(path), "", error.reason, error.message))
        return {}


def _states(config: Mapping[str, Any]) -> bool:
    return any(name in config for name in (*ALPHAS, "lora_parameters"))


def _number(value: Any) -> float | None:
    """A finite number, which headers store as text; None for anything else."""
    try:
        return finite(float(value) if isinstance(value, str) else value)
    except ValueError:
        return None
