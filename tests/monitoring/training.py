"""A small language-like model that trains, and folders of what it was, written by other means."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from rankscope.training.adapters.lora_linear import LoRALinear, iter_adapters

WIDTH, HIDDEN = 12, 18
CONFIG = {"model_type": "llama", "hidden_size": WIDTH, "num_attention_heads": 2}


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.v_proj, self.o_proj = (
            nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(3)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.o_proj(torch.tanh(self.q_proj(x)) * self.v_proj(x))


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up_proj = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.down_proj = nn.Linear(HIDDEN, WIDTH, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(torch.relu(self.up_proj(x)))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.self_attn, self.mlp = Attention(), Mlp()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.self_attn(x)
        return x + self.mlp(x)


class Body(nn.Module):
    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block() for _ in range(layers))


class Small(nn.Module):
    """Names as in Llama."""

    def __init__(self, layers: int = 2) -> None:
        super().__init__()
        self.model = Body(layers)
        self.config = CONFIG

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.model.layers:
            x = layer(x)
        return x


def small(seed: int = 0, layers: int = 2) -> Small:
    torch.manual_seed(seed)
    return Small(layers)


def adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)


def backward(model: nn.Module, step: int) -> None:
    """Gradients of a batch that depends on the step alone."""
    x = torch.randn(6, WIDTH, generator=torch.Generator().manual_seed(step))
    (model(x) - x.roll(1, 0)).square().mean().backward()


def save(model: nn.Module, run: Path, step: int) -> None:
    """A checkpoint as rankscope's trainer lays it out, written with safetensors alone."""
    folder = run / "checkpoints" / f"step-{step:08d}"
    folder.mkdir(parents=True)
    weights = {n: p.detach().clone() for n, p in model.named_parameters() if ".lora_" not in n}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG))
    adapters = dict(iter_adapters(model))
    if not adapters:
        return
    factors = {}
    for name, layer in adapters.items():
        factors[f"base_model.model.{name}.lora_A.weight"] = layer.lora_A.detach().clone()
        factors[f"base_model.model.{name}.lora_B.weight"] = layer.lora_B.detach().clone()
    (folder / "adapter").mkdir()
    save_file(factors, folder / "adapter" / "adapter_model.safetensors")
    rank, scale = (getattr(next(iter(adapters.values())), name) for name in ("rank", "scale"))
    about = {"peft_type": "LORA", "r": rank, "lora_alpha": scale * rank}
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(about))


def save_merge(model: nn.Module, run: Path, step: int) -> None:
    """The adapters that are about to be merged, as rankscope's trainer lays them out."""
    tensors = {}
    for name, layer in iter_adapters(model):
        tensors[f"{name}.lora_A"] = layer.lora_A.detach().clone()
        tensors[f"{name}.lora_B"] = layer.lora_B.detach().clone()
        tensors[f"{name}.scale"] = torch.tensor([layer.scale], dtype=torch.float64)
    (run / "merges").mkdir(exist_ok=True)
    save_file(tensors, run / "merges" / f"step-{step:08d}.safetensors")


def adapter_of(layer: nn.Linear, rank: int, seed: int) -> LoRALinear:
    return LoRALinear(layer.weight, random_a(layer.weight, rank, seed), scale=2.0)


def random_a(weight: torch.Tensor, rank: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rank, weight.shape[1], generator=generator).to(weight.dtype)


def wrapped(model: Small, rank: int = 2) -> Small:
    """The model with an adapter at every query and value."""
    for number, block in enumerate(model.model.layers):
        for name in ("q_proj", "v_proj"):
            layer = getattr(block.self_attn, name)
            setattr(block.self_attn, name, adapter_of(layer, rank, seed=number))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(".lora_" in name)
    return model


def restart(model: Small, seed: int) -> None:
    """Merge every adapter and begin the next, as rankscope's trainer does."""
    for number, (_, layer) in enumerate(iter_adapters(model)):
        layer.merge()
        layer.reset(random_a(layer.weight, layer.rank, seed + number), scale=layer.scale)


def singular_values(matrix: torch.Tensor) -> np.ndarray:
    return np.linalg.svd(matrix.detach().double().numpy(), compute_uv=False)
