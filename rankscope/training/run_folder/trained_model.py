"""A trained model out of a checkpoint of this trainer."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from rankscope.errors import RankscopeError
from rankscope.training.config import AdapterConfig, ModelConfig
from rankscope.training.model import LanguageModel


def trained_model(checkpoint: Path) -> LanguageModel:
    """Read a checkpoint's model, a live adapter added to the weights, in eval mode.

    Parameters
    ----------
    checkpoint
        A folder such as ``RUN/checkpoints/step-00001000``.

    Raises
    ------
    RankscopeError
        If a file is missing or damaged, or describes another kind of model.
    """
    try:
        settings = json.loads((checkpoint / "config.json").read_bytes())
        known = {f.name for f in fields(ModelConfig)} & settings.keys()
        shape = ModelConfig(**{name: settings[name] for name in known})
        model = LanguageModel(shape, settings["vocab_size"])
        model.load_state_dict(load_file(checkpoint / "model.safetensors"))
        if (checkpoint / "adapter").is_dir():
            _add_adapter(model, checkpoint / "adapter")
    except (OSError, SafetensorError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise RankscopeError(
            f"is not a complete checkpoint of `rankscope train`: {reason}", path=checkpoint
        ) from None
    return model.eval()


@torch.no_grad()
def _add_adapter(model: LanguageModel, folder: Path) -> None:
    settings = json.loads((folder / "adapter_config.json").read_bytes())
    adapter = AdapterConfig(
        rank=settings["r"],
        alpha=settings["lora_alpha"],
        rank_stabilised=settings["use_rslora"],
    )
    tensors = load_file(folder / "adapter_model.safetensors")
    for key, a in tensors.items():
        name = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        if key.endswith(".lora_A.weight"):
            b = tensors[key.replace(".lora_A.", ".lora_B.")]
            weight = model.get_parameter(f"{name}.weight")
            delta = adapter.scale(len(a)) * b.double() @ a.double()
            weight.copy_(weight.double() + delta)
