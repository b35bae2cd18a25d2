"""Honest folders, as small as each format allows: what the mutants are made of."""

from __future__ import annotations

import json
import warnings
from collections import OrderedDict
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

ROWS, COLUMNS, RANK = 4, 3, 1
Q, V = (f"model.layers.0.self_attn.{name}_proj" for name in "qv")
CONFIG = {"model_type": "llama", "hidden_size": COLUMNS, "num_attention_heads": 2, "head_dim": 2}
Tensors = dict[str, NDArray[np.float32]]


def matrix(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng((2307, seed, *shape)).normal(size=shape).astype(np.float32)


def weights(seed: int = 0) -> Tensors:
    named = {f"{one}.weight": matrix(ROWS, COLUMNS, seed=seed + i) for i, one in enumerate((Q, V))}
    return named | {"model.norm.weight": np.ones(COLUMNS, np.float32)}


def model(folder: Path, seed: int = 0) -> None:
    folder.mkdir(parents=True)
    save_file(weights(seed), folder / "model.safetensors", metadata={"format": "pt"})
    as_json(folder / "config.json", CONFIG)


def as_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def sharded(folder: Path) -> None:
    """A model in two shards with an index."""
    model(folder)
    (folder / "model.safetensors").unlink()
    index = {}
    for number, (name, tensor) in enumerate(list(weights().items())[:2], start=1):
        shard = f"model-0000{number}-of-00002.safetensors"
        save_file({name: tensor}, folder / shard)
        index[name] = shard
    as_json(
        folder / "model.safetensors.index.json",
        {"metadata": {"total_size": 96}, "weight_map": index},
    )


def factors(seed: int = 0) -> Tensors:
    return {
        f"base_model.model.{module}.lora_{side}.weight": matrix(*shape, seed=seed)
        for module in (Q, V)
        for side, shape in (("A", (RANK, COLUMNS)), ("B", (ROWS, RANK)))
    }


ADAPTER = {
    "peft_type": "LORA", "r": RANK, "lora_alpha": 2, "target_modules": ["q_proj", "v_proj"],
    "base_model_name_or_path": None, "rank_pattern": {"v_proj": RANK}, "use_rslora": False,
    "alpha_pattern": {"layers.0.self_attn.q_proj": 4}, "layers_to_transform": None,
    "layers_pattern": None, "fan_in_fan_out": False, "use_dora": False, "modules_to_save": None,
}  # fmt: skip


def adapter(folder: Path, seed: int = 0) -> None:
    """A PEFT adapter alone."""
    folder.mkdir(parents=True)
    save_file(factors(seed), folder / "adapter_model.safetensors")
    as_json(folder / "adapter_config.json", ADAPTER)


def adapted(folder: Path) -> None:
    """A model with a PEFT adapter in it."""
    model(folder)
    adapter(folder / "adapter")


def torch_model(folder: Path, *, legacy: bool = False) -> None:
    import torch

    model(folder)
    (folder / "model.safetensors").unlink()
    held = OrderedDict((name, torch.from_numpy(one.copy())) for name, one in weights().items())
    held[f"{V}.weight"] = held[f"{V}.weight"].bfloat16()
    torch.save(held, folder / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)


def torch_before_1_6(folder: Path) -> None:
    torch_model(folder, legacy=True)


def training_file(folder: Path) -> None:
    """A dict of model, optimizer and arguments, as nanoGPT saves it."""
    import torch

    folder.mkdir(parents=True)
    model = {
        "transformer.h.0.attn.c_attn.weight": torch.from_numpy(matrix(6, 2)),
        "transformer.h.0.ln_1.weight": torch.ones(2),
    }
    state = {"step": torch.tensor(1.0), "exp_avg": torch.zeros(6, 2)}
    group = {"lr": 1e-3, "betas": (0.9, 0.95), "params": [0]}
    entries = {
        "model": model,
        "optimizer": {"state": {0: state}, "param_groups": [group]},
        "model_args": {"n_layer": 1, "n_head": 1, "n_embd": 2, "bias": False},
        "iter_num": 1,
        "best_val_loss": torch.tensor(2.5),
        "config": {"dtype": "bfloat16"},
    }
    torch.save(entries, folder / "ckpt_1.pt")


def distributed(folder: Path) -> None:
    import torch
    import torch.distributed.checkpoint as dcp

    folder.mkdir(parents=True)
    state = {name: torch.from_numpy(one.copy()) for name, one in list(weights().items())[:2]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it saves in a single process
        writer = dcp.FileSystemWriter(folder, sync_files=False)
        dcp.save({"model": state, "step": 1}, storage_writer=writer, no_dist=True)


def arrays(folder: Path, *, compressed: bool = False) -> None:
    folder.mkdir(parents=True)
    save = np.savez_compressed if compressed else np.savez
    named = dict(list(weights().items())[:2])
    save(folder / "model_1.npz", **named)  # type: ignore[arg-type]


def shard_files(folder: Path) -> None:
    """A distributed checkpoint of safetensors files, the pieces of two processes."""
    folder.mkdir(parents=True)
    for number in (1, 2):
        start = {f"{Q}.weight": {"saved_offsets": [ROWS * (number - 1), 0]}}
        save_file(
            {f"{Q}.weight": matrix(ROWS, COLUMNS, seed=number)},
            folder / f"shard-0000{number}-model-00001-of-00001.safetensors",
            metadata={"DCP_SHARDING_INFO": json.dumps(start)},
        )


def litgpt(folder: Path) -> None:
    import torch

    folder.mkdir(parents=True)
    held = {"transformer.h.0.attn.qkv.weight": torch.from_numpy(matrix(6, 2))}
    torch.save(held, folder / "lit_model.pth")
    (folder / "model_config.yaml").write_text(
        "name: x\nn_layer: 1\nn_head: 1\nn_query_groups: 1\nhead_size: 2\nn_embd: 2\n"
        "rope_base: 10000\nlists: [1, 2]\nnested:\n  a: 1\n"
    )


def guitaricet(folder: Path) -> None:
    import torch

    folder.mkdir(parents=True)
    held = {f"{Q}.weight": torch.from_numpy(matrix(ROWS, COLUMNS))}
    for name, one in factors().items():
        if Q in name:
            held[name.removeprefix("base_model.model.")] = torch.from_numpy(one)
    torch.save(held, folder / "pytorch_model.bin")
    as_json(folder / "config.json", CONFIG)
    as_json(folder / "relora_config.json", {"r": RANK, "lora_alpha": 2, "trainable_scaling": False})
    state = {"global_step": 4, "update_step": 2, "n_lora_restarts": 1, "n_optimizer_resets": 1}
    as_json(folder / "training_state.json", state)


def trained_run(run: Path, *, manifests: bool = True) -> None:
    """A run of this package's trainer: two steps, adapters, a merge, a log."""
    for step in (1, 2):
        folder = run / "checkpoints" / f"step-{step:08d}"
        model(folder, seed=step)
        adapter(folder / "adapter", seed=step)
        as_json(folder / "state.json", {"step": step})
        if manifests:
            _manifest(folder)
    merges = run / "merges"
    merges.mkdir()
    merged = {}
    for module in (Q, V):
        merged[f"{module}.lora_A"] = matrix(RANK, COLUMNS, seed=7)
        merged[f"{module}.lora_B"] = matrix(ROWS, RANK, seed=7)
        merged[f"{module}.scale"] = np.array([2.0], np.float32)
    save_file(merged, merges / "step-00000001.safetensors")
    log = [{"step": step, "loss": 3.0 - step, "lr": 1e-3} for step in (1, 2)]
    log.append({"step": 1, "event": "merge"})
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    (run / "config.toml").write_text(
        '[schedule]\nsteps = 2\n[adapter]\nmethod = "relora"\nrank = 1\n'
    )


def _manifest(folder: Path) -> None:
    listed = {
        one.relative_to(folder).as_posix(): {
            "bytes": one.stat().st_size,
            "blake2b": blake2b(one.read_bytes(), digest_size=32).hexdigest(),
        }
        for one in sorted(folder.rglob("*"))
        if one.is_file()
    }
    as_json(folder / "MANIFEST.json", {"format": "rankscope-checkpoint-1", "files": listed})


def trainer_run(run: Path) -> None:
    """Two checkpoints of the Trainer of transformers."""
    for step in (1, 2):
        folder = run / f"checkpoint-{step}"
        model(folder, seed=step)
        log = [{"step": n, "loss": 3.0 - n, "epoch": 0.5 * n} for n in range(1, step + 1)]
        state = {"global_step": step, "max_steps": 2, "log_history": log, "epoch": 0.5}
        as_json(folder / "trainer_state.json", state)


def families(folder: Path) -> None:
    """A model, and a file that describes its family."""
    model(folder / "checkpoint-1")
    (folder / "family.toml").write_text(FAMILY)


FAMILY = """\
name = "mine"
description = "for a test"
model_types = ["llama"]
keys = ["q_proj"]
unless = ["c_attn"]
wide = ["x_proj"]
transposed = ["y_proj"]
ignored = ["rotary*"]

[when]
flag = false

[config]
heads = ["num_attention_heads"]

[roles]
q_proj = "q"
v_proj = "v"

[fused.qkv_proj]
parts = ["q", "k", "v"]
split = "blocks"
times = 1

[axes]
experts = ["expert", "out", "in"]

[twice]
gate_up = "down"

[factors.mine]
left = "up"
right = "down"
alpha = "alpha"
scale = 1.0
makes = "change"
spare = ["old_*"]

[[norms]]
model_types = ["llama"]
kind = "rms"
offset = 1
q = "q_norm"
"""
