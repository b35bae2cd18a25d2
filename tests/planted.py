"""Two runs whose every singular value is prescribed, for the examples in the README and in docs.

Both begin with weights whose singular values are all 1. ``full`` adds to half of them in every
interval between checkpoints; ``relora`` adds a product of rank 4 in each of its cycles, which are
as long, to four other singular values each time. What is added is more in the second layer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tests.conftest import write_adapter, write_model

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]

STEPS, RANK, SCALE = (0, 100, 200, 300, 400), 4, 2.0
WIDTH, HIDDEN, LAYERS, VOCABULARY = 48, 96, 2, 80
FULL_GROWTH, RELORA_GROWTH = (1.0, 2.0), (4.0, 10.0)  # of a singular value, by layer
LOGS = [{"step": step, "loss": 5 / (1 + step / 100)} for step in range(50, STEPS[-1] + 1, 50)]
SHAPES = {
    "self_attn.q_proj": (WIDTH, WIDTH),
    "self_attn.k_proj": (WIDTH // 2, WIDTH),
    "self_attn.v_proj": (WIDTH // 2, WIDTH),
    "self_attn.o_proj": (WIDTH, WIDTH),
    "mlp.gate_proj": (HIDDEN, WIDTH),
    "mlp.up_proj": (HIDDEN, WIDTH),
    "mlp.down_proj": (WIDTH, HIDDEN),
}
CONFIG = {
    "model_type": "llama",
    "hidden_size": WIDTH,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def full_weight(step: int, q: int, layer: int) -> Vector:
    """Singular values of a weight of ``full``: half of them have grown."""
    return np.where(np.arange(q) < q // 2, 1 + FULL_GROWTH[layer] * step / 100, 1.0)


def relora_weight(step: int, q: int, layer: int) -> Vector:
    """Those of ``relora``, its live adapter included: four more have grown after each cycle."""
    return np.where(np.arange(q) < RANK * step // 100, 1 + RELORA_GROWTH[layer], 1.0)


def effective_rank(s: Vector) -> float:
    """exp(−Σ p ln p) with p = s/Σs, of positive values."""
    p = s / s.sum()
    return float(np.exp(-np.sum(p * np.log(p))))


def write_planted_runs(folder: Path) -> None:
    """Write the runs ``full`` and ``relora``."""
    bases = dict(_bases(np.random.default_rng(2307)))
    for step in STEPS:
        place = folder / "full" / f"checkpoint-{step}"
        weights = {
            f"{module}.weight": left * full_weight(step, len(right), _layer(module)) @ right
            for module, (left, right) in bases.items()
        }
        write_model(place, _stored(weights), config=CONFIG)
        state = {"global_step": step, "log_history": [log for log in LOGS if log["step"] <= step]}
        (place / "trainer_state.json").write_text(json.dumps(state))
    _write_relora(folder / "relora", bases)


def _bases(rng: np.random.Generator) -> Iterator[tuple[str, tuple[Matrix, Matrix]]]:
    """Singular vectors of each module, in columns on the left and in rows on the right."""
    for layer in range(LAYERS):
        for name, (rows, cols) in SHAPES.items():
            q = min(rows, cols)
            left, _ = np.linalg.qr(rng.normal(size=(rows, q)))
            right, _ = np.linalg.qr(rng.normal(size=(cols, q)))
            yield f"model.layers.{layer}.{name}", (left, np.ascontiguousarray(right.T))


def _stored(weights: dict[str, Matrix]) -> dict[str, NDArray[np.float32]]:
    others = {
        "model.embed_tokens.weight": np.eye(VOCABULARY, WIDTH),
        "lm_head.weight": np.eye(VOCABULARY, WIDTH),
        "model.norm.weight": np.ones(WIDTH),
    }
    return {name: value.astype(np.float32) for name, value in (weights | others).items()}


def _write_relora(path: Path, bases: dict[str, tuple[Matrix, Matrix]]) -> None:
    path.mkdir()
    (path / "metrics.jsonl").write_text("".join(json.dumps(log) + "\n" for log in LOGS))
    frozen = {f"{module}.weight": left @ right for module, (left, right) in bases.items()}
    for step in STEPS:
        place = path / "checkpoints" / f"step-{step:08d}"
        write_model(place, _stored(frozen), config=CONFIG)
        factors = {module: _factors(module, step, *vectors) for module, vectors in bases.items()}
        write_adapter(place / "adapter", factors, scale=SCALE, rank=RANK)
        (place / "state.json").write_text(json.dumps({"step": step}))
        if step == 0:
            continue
        (path / "merges").mkdir(exist_ok=True)
        merged = {}
        for module, (left, right) in factors.items():
            merged[f"{module}.lora_A"] = right.astype(np.float32)
            merged[f"{module}.lora_B"] = left.astype(np.float32)
            merged[f"{module}.scale"] = np.array([SCALE])
            frozen[f"{module}.weight"] = frozen[f"{module}.weight"] + SCALE * left @ right
        save_file(merged, path / "merges" / f"step-{step:08d}.safetensors")


def _factors(module: str, step: int, left: Matrix, right: Matrix) -> tuple[Matrix, Matrix]:
    """B and A of a cycle's end, of step 0 its beginning; their product grows four directions."""
    grown = slice(RANK * max(step // 100 - 1, 0), RANK * max(step // 100, 1))
    growth = RELORA_GROWTH[_layer(module)] if step else 0.0
    return left[:, grown] * growth / SCALE, right[grown]


def _layer(module: str) -> int:
    return int(module.split(".")[2])
