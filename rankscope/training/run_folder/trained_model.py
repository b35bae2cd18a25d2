"""A Llama model from a folder: a checkpoint of this trainer, or one of Hugging Face's."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from rankscope.durable import read_file
from rankscope.errors import RankscopeError, printable
from rankscope.training.config import AdapterConfig, ModelConfig
from rankscope.training.model import LanguageModel, load_weights

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
# What `LanguageModel` does, and a configuration may say differently; by default as transformers.
ARITHMETIC: dict[str, object] = {
    "model_type": "llama",
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "rope_type": "default",
}

# Raised by reading a model that is not what it should be.
DAMAGE = (
    *(OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError),
)


def trained_model(folder: Path) -> LanguageModel:
    """Read a model, float32, in eval mode; a live adapter of this trainer is added to the weights.

    Parameters
    ----------
    folder
        A checkpoint such as ``RUN/checkpoints/step-00001000``, or any folder with the
        ``config.json`` and the safetensors of a Llama model.

    Raises
    ------
    RankscopeError
        If a file is missing or damaged, or describes another kind of model.
    """
    try:
        settings = json.loads(read_file(folder / "config.json"))
        model = LanguageModel(_shape(settings, folder), settings["vocab_size"])
        load_weights(model, _weights(folder))
        if (folder / "adapter").is_dir():
            _add_adapter(model, folder / "adapter")
    except DAMAGE as error:
        reason = " ".join(str(error).split()).partition("LanguageModel: ")[2] or str(error)
        raise RankscopeError(
            f"is not a complete checkpoint of a Llama model: {printable(reason)}", path=folder
        ) from None
    return model.eval()


def _shape(settings: dict[str, Any], folder: Path) -> ModelConfig:
    """The shape that a Hugging Face configuration describes, if this model has its arithmetic."""
    rope = settings.get("rope_parameters") or settings.get("rope_scaling") or {}
    given = {"rope_type": rope.get("rope_type", rope.get("type", "default")), **settings}
    for name, ours in ARITHMETIC.items():
        if (theirs := given.get(name, ours)) != ours:
            message = f"its {name} is {theirs!r}, and this trainer computes {ours!r}"
            raise RankscopeError(message, path=folder / "config.json")
    if (theta := rope.get("rope_theta")) is not None:
        given["rope_theta"] = theta
    given.setdefault("num_key_value_heads", given["num_attention_heads"])
    known = {f.name for f in fields(ModelConfig)} & given.keys()
    shape = ModelConfig(**{name: given[name] for name in known - {"vocab_size"}})
    if (head_dim := given.get("head_dim") or shape.head_dim) != shape.head_dim:
        message = f"its head_dim is {head_dim}, and this trainer computes {shape.head_dim}"
        raise RankscopeError(message, path=folder / "config.json")
    return shape


def _weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of the model, without the tables of angles that old versions stored."""
    files = {WEIGHTS}
    if not (folder / WEIGHTS).exists() and (folder / INDEX).exists():
        files = set(json.loads(read_file(folder / INDEX))["weight_map"].values())
    tensors: dict[str, Tensor] = {}
    for file in sorted(files):
        tensors |= _tensors(folder / Path(file).name)
    return {name: t for name, t in tensors.items() if not name.endswith("rotary_emb.inv_freq")}


def _tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a file; not by a memory map, since a file cut short would end the process."""
    return load(read_file(path))


@torch.no_grad()
def _add_adapter(model: LanguageModel, folder: Path) -> None:
    settings = json.loads(read_file(folder / "adapter_config.json"))
    adapter = AdapterConfig(
        rank=settings["r"],
        alpha=settings["lora_alpha"],
        rank_stabilised=settings["use_rslora"],
    )
    tensors = _tensors(folder / "adapter_model.safetensors")
    for key, a in tensors.items():
        name = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        if key.endswith(".lora_A.weight"):
            b = tensors[key.replace(".lora_A.", ".lora_B.")]
            weight = model.get_parameter(f"{name}.weight")
            delta = adapter.scale(len(a)) * b.double() @ a.double()
            weight.copy_(weight.double() + delta)
