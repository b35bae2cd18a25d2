"""Matrices with a prescribed spectrum, and run folders written without a trainer."""

from __future__ import annotations

import gc
import itertools
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from safetensors.numpy import save_file

from rankscope import durable
from rankscope.results.record import DIGEST, FILES
from rankscope.writers import own_mark

Matrix = NDArray[np.float64]
Tensors = dict[str, NDArray[np.float32]]

WIDTH, HIDDEN, LAYERS, HEADS, KV_HEADS, VOCABULARY, RANK = 16, 24, 2, 4, 2, 20, 2
SHAPES = {
    "self_attn.q_proj": (WIDTH, WIDTH),
    "self_attn.k_proj": (WIDTH // 2, WIDTH),
    "self_attn.v_proj": (WIDTH // 2, WIDTH),
    "self_attn.o_proj": (WIDTH, WIDTH),
    "mlp.gate_proj": (HIDDEN, WIDTH),
    "mlp.up_proj": (HIDDEN, WIDTH),
    "mlp.down_proj": (WIDTH, HIDDEN),
}
MODULES = {f"model.layers.{i}.{name}": s for i in range(LAYERS) for name, s in SHAPES.items()}
CONFIG = {
    "model_type": "llama",
    "hidden_size": WIDTH,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(2307)


@pytest.fixture
def matrix_with(rng: np.random.Generator) -> Callable[[ArrayLike, tuple[int, int]], Matrix]:
    """Make a random matrix of a shape with prescribed singular values."""

    def make(s: ArrayLike, shape: tuple[int, int]) -> Matrix:
        s = np.asarray(s, dtype=np.float64)
        left, _ = np.linalg.qr(rng.normal(size=(shape[0], s.size)))
        right, _ = np.linalg.qr(rng.normal(size=(shape[1], s.size)))
        return left * s @ right.T

    return make


@dataclass
class TinyRun:
    """A ReLoRA run on disk, and the tensors that were written."""

    path: Path
    weights: dict[int, Tensors] = field(default_factory=dict)  # step → frozen weights
    factors: dict[int, dict[str, tuple[Matrix, Matrix]]] = field(default_factory=dict)
    merges: tuple[int, ...] = ()
    scale: float = 2.0

    def delta(self, step: int, module: str) -> Matrix:
        """What the live adapter of a module adds at a step."""
        left, right = self.factors[step][module]
        return self.scale * left @ right


def write_model(folder: Path, tensors: Tensors, *, config: dict[str, object] | None = None) -> None:
    """Write a Hugging Face model folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG if config is None else config))


def write_adapter(
    folder: Path, factors: dict[str, tuple[Matrix, Matrix]], *, scale: float, rank: int = RANK
) -> None:
    """Write a PEFT adapter folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for module, (left, right) in factors.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = right.astype(np.float32)
        tensors[f"base_model.model.{module}.lora_B.weight"] = left.astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": scale * rank}
    (folder / "adapter_config.json").write_text(json.dumps(config))


def random_weights(rng: np.random.Generator) -> Tensors:
    """Weights of a small model, with embeddings and a norm."""
    tensors = {
        f"{module}.weight": rng.normal(size=shape).astype(np.float32)
        for module, shape in MODULES.items()
    }
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = rng.normal(size=(VOCABULARY, WIDTH)).astype(np.float32)
    tensors["model.norm.weight"] = np.ones(WIDTH, np.float32)
    return tensors


def random_factors(rng: np.random.Generator) -> dict[str, tuple[Matrix, Matrix]]:
    """Adapters that float32 holds exactly, one a module."""
    return {
        module: (
            rng.normal(size=(shape[0], RANK)).astype(np.float32).astype(np.float64),
            rng.normal(size=(RANK, shape[1])).astype(np.float32).astype(np.float64),
        )
        for module, shape in MODULES.items()
    }


@pytest.fixture
def relora_run(tmp_path: Path, rng: np.random.Generator) -> TinyRun:
    return write_relora_run(tmp_path / "ckpts" / "relora", rng)


@pytest.fixture
def full_run(tmp_path: Path, rng: np.random.Generator) -> Path:
    return write_full_run(tmp_path / "ckpts" / "full", rng)


def write_relora_run(path: Path, rng: np.random.Generator) -> TinyRun:
    """Write a ReLoRA run of steps 0, 10, 20, 30 which merges after steps 10 and 20."""
    run = TinyRun(path, merges=(10, 20))
    weights = random_weights(rng)
    for step in (0, 10, 20, 30):
        factors = random_factors(rng)
        if step == 0:
            factors = {m: (np.zeros_like(left), right) for m, (left, right) in factors.items()}
        run.weights[step], run.factors[step] = dict(weights), factors
        folder = run.path / "checkpoints" / f"step-{step:08d}"
        write_model(folder, weights)
        write_adapter(folder / "adapter", factors, scale=run.scale)
        gradients = {f"{module}.weight": weights[f"{module}.weight"] for module in MODULES}
        save_file(gradients, folder / "gradients.safetensors")
        (folder / "state.json").write_text(json.dumps({"step": step}))
        if step in run.merges:
            _write_merge(run, step)
            for module in MODULES:
                merged = weights[f"{module}.weight"] + run.delta(step, module)
                weights[f"{module}.weight"] = merged.astype(np.float32)
    (run.path / "metrics.jsonl").write_text('{"step": 10, "loss": 2.0}\n{"step": 20, "lo')
    return run


def _write_merge(run: TinyRun, step: int) -> None:
    tensors: dict[str, NDArray[np.floating]] = {}
    for module, (left, right) in run.factors[step].items():
        tensors[f"{module}.lora_A"] = right.astype(np.float32)
        tensors[f"{module}.lora_B"] = left.astype(np.float32)
        tensors[f"{module}.scale"] = np.array([run.scale])
    folder = run.path / "merges"
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / f"step-{step:08d}.safetensors")


def write_full_run(path: Path, rng: np.random.Generator) -> Path:
    """Write a full-rank run in the Hugging Face Trainer's layout, with steps 5, 10 and 100."""
    for step in (5, 10, 100):
        write_model(path / f"checkpoint-{step}", random_weights(rng))
        state = {"global_step": step, "log_history": [{"step": step, "loss": 1.0 / step}]}
        (path / f"checkpoint-{step}" / "trainer_state.json").write_text(json.dumps(state))
    return path


def forget_digests(results: Path) -> None:
    """Let a test change results, as those of a version that recorded no digests could be."""
    record = json.loads((results / "analysis.json").read_text())
    kept = {name: value for name, value in record.items() if name not in (DIGEST, FILES)}
    (results / "analysis.json").write_text(json.dumps(kept))


def dead_mark() -> str:
    """The mark in the temporary names of a process that ended, and whose number is ours now."""
    machine, number, _ = own_mark().split("-")
    return f"{machine}-{number}-{'0' * 8}"


CHANGES = ("write", "fsync", "mkdir", "rename", "replace", "unlink", "rmdir")  # of os


class Killed(BaseException):
    """What a process that is killed does not survive: no `except` of the program sees it."""


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], AbstractContextManager[list[str]]]:
    """Let a process die before its n-th change to the file system; yields what it died before."""

    @contextmanager
    def killing(n: int) -> Iterator[list[str]]:
        calls, killed, own = itertools.count(), list[str](), threading.get_ident()
        gc.collect()  # what earlier tests left is tidied up now, and not in the count

        def dying(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **settings: Any) -> Any:
                if threading.get_ident() == own and (killed or next(calls) == n):
                    killed.append(name)
                    raise Killed
                return function(*args, **settings)

            return call

        with monkeypatch.context() as patch:
            patch.setattr(durable, "own_mark", dead_mark)
            for name in CHANGES:
                patch.setattr(os, name, dying(name, getattr(os, name)))
            with suppress(Killed):
                yield killed

    return killing
