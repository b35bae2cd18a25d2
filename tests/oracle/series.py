"""Three small runs on disk, which together have everything that makes composite matrices hard.

``relora``: this package's layout, live adapters, merges whose ranks change, patterns of rank and
alpha, rank-stabilised scales, grouped heads, tied embeddings, biases; a base that was trained in
bfloat16. ``plain``: a Trainer's checkpoints, each in another storage format. ``tuned``: PEFT
adapters on a base model elsewhere.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

WIDTH, HIDDEN, HEADS, KV_HEADS, WORDS = 8, 12, 4, 2, 10
SIZE = WIDTH // HEADS
SHAPES = {
    "self_attn.q_proj": (WIDTH, WIDTH),
    "self_attn.k_proj": (KV_HEADS * SIZE, WIDTH),
    "self_attn.v_proj": (KV_HEADS * SIZE, WIDTH),
    "self_attn.o_proj": (WIDTH, WIDTH),
    "mlp.gate_proj": (HIDDEN, WIDTH),
    "mlp.up_proj": (HIDDEN, WIDTH),
    "mlp.down_proj": (WIDTH, HIDDEN),
}
MODULES = {f"model.layers.0.{name}": shape for name, shape in SHAPES.items()}
EMBEDDING = "model.embed_tokens"
CONFIG = {
    "model_type": "llama",
    "hidden_size": WIDTH,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "tie_word_embeddings": True,
    "attention_bias": True,
}
Weights = dict[str, Tensor]
Factors = dict[str, tuple[Tensor, Tensor]]


def write_all(folder: Path, rng: np.random.Generator) -> dict[str, Path]:
    """Write the runs; their folders by name."""
    return {
        "relora": write_relora(folder / "relora", rng),
        "plain": write_plain(folder / "plain", rng),
        "tuned": write_tuned(folder / "tuned", folder / "base-model", rng),
    }


def write_relora(path: Path, rng: np.random.Generator) -> Path:
    """Steps 0, 10, 15, 20 and 30 with merges after 10 and 20; ranks 2, then 3, then 1."""
    weights = {k: v.bfloat16().float() for k, v in random_weights(rng).items()}
    configs = [
        {"r": 2, "lora_alpha": 3, "rank_pattern": {"up_proj": 1}, "alpha_pattern": {"k_proj": 5}},
        {"r": 3, "lora_alpha": 2, "use_rslora": True, "rank_pattern": {"mlp.*": 2}},
        {"r": 1, "lora_alpha": 1},
    ]
    cycle = 0
    for step, size in ((0, 0.0), (10, 0.1), (15, 0.02), (20, 0.3), (30, 1e-4)):
        config = configs[cycle]
        factors = random_factors(rng, {m: rank_of(config, m) for m in MODULES}, size)
        folder = path / "checkpoints" / f"step-{step:08d}"
        write_model(folder, weights)
        write_adapter(folder / "adapter", factors, config)
        (folder / "state.json").write_text(json.dumps({"step": step}))
        if step in (10, 20):
            write_merge(path / "merges" / f"step-{step:08d}.safetensors", factors, config)
            for module, (left, right) in factors.items():
                added = scale_of(config, module) * (left.double() @ right.double())
                name = f"{module}.weight"
                weights[name] = (weights[name].double() + added).float()
            cycle += 1
            weights[f"{EMBEDDING}.weight"] += 0.01 * torch.from_numpy(
                rng.normal(size=(WORDS, WIDTH))
            )
    return path


def write_plain(path: Path, rng: np.random.Generator) -> Path:
    """Steps 5, 10, 20 and 40 in float32, bfloat16, float16 and float64."""
    weights = {name: tensor.double() for name, tensor in random_weights(rng).items()}
    formats = {5: torch.float32, 10: torch.bfloat16, 20: torch.float16, 40: torch.float64}
    for step, dtype in formats.items():
        folder = path / f"checkpoint-{step}"
        write_model(folder, {name: tensor.to(dtype) for name, tensor in weights.items()})
        (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
        for module, (m, n) in MODULES.items():
            low = rng.normal(size=(m, 1)) @ rng.normal(size=(1, n))
            weights[f"{module}.weight"] += 0.2 * torch.from_numpy(low)
    return path


def write_tuned(path: Path, base: Path, rng: np.random.Generator) -> Path:
    """Adapters of steps 100, 200 and 300 on one base; the last repeats the left factors."""
    write_model(base, {name: tensor.half() for name, tensor in random_weights(rng).items()})
    config = {
        "r": 2,
        "lora_alpha": 7,
        "use_rslora": True,
        "base_model_name_or_path": str(base.resolve()),
    }
    left: Factors = {}
    for step in (100, 200, 300):
        factors = random_factors(rng, dict.fromkeys(MODULES, 2), 0.1)
        if step == 300:
            factors = {m: (left[m][0], right) for m, (_, right) in factors.items()}
        write_adapter(path / f"checkpoint-{step}", factors, config)
        left = factors
    return path


def random_weights(rng: np.random.Generator) -> Weights:
    """Float32 weights with a spectrum that falls, a tied embedding, biases and a norm."""

    def matrix(m: int, n: int) -> Tensor:
        steep = np.geomspace(1, 1e-3, n)
        return torch.from_numpy(rng.normal(size=(m, n)) * steep).float()

    tensors = {f"{module}.weight": matrix(*shape) for module, shape in MODULES.items()}
    for module, (m, _) in MODULES.items():
        if "self_attn" in module:
            tensors[f"{module}.bias"] = torch.from_numpy(rng.normal(size=m)).float()
    tensors[f"{EMBEDDING}.weight"] = matrix(WORDS, WIDTH)
    tensors["model.norm.weight"] = torch.ones(WIDTH)
    return tensors


def random_factors(rng: np.random.Generator, ranks: Mapping[str, int], size: float) -> Factors:
    """Float32 factors B and A of every module."""
    return {
        module: (
            torch.from_numpy(size * rng.normal(size=(m, ranks[module]))).float(),
            torch.from_numpy(rng.normal(size=(ranks[module], n))).float(),
        )
        for module, (m, n) in MODULES.items()
    }


def rank_of(config: Mapping[str, object], module: str) -> int:
    """Rank of a module: that of the first matching pattern, otherwise r."""
    import re

    patterns = config.get("rank_pattern", {})
    assert isinstance(patterns, dict)
    ranks = (rank for p, rank in patterns.items() if re.fullmatch(rf"(.*\.)?({p})", module))
    return int(next(ranks, config["r"]))  # type: ignore[call-overload]


def scale_of(config: Mapping[str, object], module: str) -> float:
    """α/r or α/√r in float64, as a trainer computes it."""
    patterns = config.get("alpha_pattern", {})
    assert isinstance(patterns, dict)
    alpha = next((a for p, a in patterns.items() if module.endswith(p)), config["lora_alpha"])
    rank = rank_of(config, module)
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def write_model(folder: Path, tensors: Weights) -> None:
    """A Hugging Face folder."""
    folder.mkdir(parents=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG))


def write_adapter(folder: Path, factors: Factors, config: Mapping[str, object]) -> None:
    """A PEFT folder."""
    folder.mkdir(parents=True)
    named = {}
    for module, (left, right) in factors.items():
        named[f"base_model.model.{module}.lora_A.weight"] = right
        named[f"base_model.model.{module}.lora_B.weight"] = left
    save_file(named, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **config}))


def write_merge(path: Path, factors: Factors, config: Mapping[str, object]) -> None:
    """The record of a merge."""
    path.parent.mkdir(exist_ok=True)
    named = {}
    for module, (left, right) in factors.items():
        named[f"{module}.lora_A"], named[f"{module}.lora_B"] = right, left
        named[f"{module}.scale"] = torch.tensor([scale_of(config, module)], dtype=torch.float64)
    save_file(named, path)
