"""The files of a PEFT LoRA adapter: ``adapter_config.json``, ``adapter_model.safetensors``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankscope.checkpoints.contents import Adapter, Skip
from rankscope.checkpoints.families.names import plain_name
from rankscope.checkpoints.files.json_file import read_json
from rankscope.checkpoints.files.safetensors_file import open_tensors
from rankscope.checkpoints.tensors import Tensor
from rankscope.errors import RankscopeError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FACTOR = re.compile(r"(?P<module>.+)\.(?P<factor>lora_[AB])(?:\.default)?\.weight")


def base_folder(folder: Path) -> Path | None:
    """Folder of the weights that the adapter belongs to, if it is on this machine."""
    stated = read_json(folder / CONFIG).get("base_model_name_or_path")
    if not isinstance(stated, str) or not stated:
        return None
    # A relative path is meant from the adapter, or from where the training was started.
    for candidate in (folder / stated, Path(stated)):
        if (candidate / "config.json").is_file():
            return candidate
    return None


def read_adapters(folder: Path) -> tuple[dict[str, Adapter], tuple[Skip, ...]]:
    """Adapters by the module that each belongs to, and what cannot be used.

    Raises
    ------
    RankscopeError
        If the adapter is not a LoRA, or its weights are missing or damaged.
    """
    config, path = read_json(folder / CONFIG), folder / WEIGHTS
    if config.get("peft_type", "LORA") != "LORA":
        raise RankscopeError(
            f"is a PEFT adapter of type {config['peft_type']}, only LORA has a low-rank delta",
            path=folder / CONFIG,
        )
    if not path.is_file():
        raise RankscopeError(f"has no {WEIGHTS} beside its {CONFIG}", path=folder)
    factors: dict[str, dict[str, Tensor]] = {}
    skips = []
    for name, tensor in open_tensors(path).items():
        match = FACTOR.fullmatch(plain_name(name))
        if match is None:
            skips.append(Skip(str(path), name, "not-an-adapter", "is no plain LoRA factor"))
        else:
            factors.setdefault(match["module"], {})[match["factor"]] = tensor
    adapters = {}
    for module, pair in factors.items():
        fault = _fault(pair)
        if fault:
            skips.append(Skip(str(path), module, "adapter-incomplete", fault))
        else:
            scale = scale_of(config, module, rank=pair["lora_A"].shape[0])
            adapters[module] = Adapter(pair["lora_A"], pair["lora_B"], scale)
    return adapters, tuple(skips)


def _fault(pair: Mapping[str, Tensor]) -> str:
    """What is wrong with the two factors of a module, if anything."""
    for missing, there in (("lora_A", "lora_B"), ("lora_B", "lora_A")):
        if missing not in pair:
            return f"has {there} but no {missing}"
    a, b = pair["lora_A"].shape, pair["lora_B"].shape
    if len(a) != 2 or len(b) != 2 or a[0] != b[1]:
        return f"its factors do not fit: lora_A is {list(a)}, lora_B is {list(b)}"
    return ""


def scale_of(config: Mapping[str, Any], module: str, *, rank: int) -> float:
    """Factor of B·A in the model's function: alpha/r, or alpha/√r for rank-stabilised LoRA.

    PEFT matches the keys of ``alpha_pattern`` against the end of the module's path; the rank is
    that of the stored factor.
    """
    alpha = config.get("lora_alpha", rank)
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            alpha = value
            break
    if not isinstance(alpha, (int, float)):
        raise RankscopeError(f"lora_alpha is {alpha!r}, not a number", path=CONFIG)
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def fitting(adapters: Mapping[str, Adapter], tensors: Mapping[str, Tensor]) -> dict[str, Adapter]:
    """Those of the adapters whose weight is there."""
    held = {plain_name(name).removesuffix(".weight") for name in tensors}
    return {module: adapter for module, adapter in adapters.items() if module in held}


def misfits(adapters: Mapping[str, Adapter], tensors: Mapping[str, Tensor]) -> list[Skip]:
    """A skip for each of the other adapters."""
    message = "its delta belongs to a weight that is not there"
    return [
        Skip(adapter.lora_A.paths[0], module, "adapter-misfit", message)
        for module, adapter in adapters.items()
        if module not in fitting(adapters, tensors)
    ]
