"""Write the checkpoints that the benchmark measures, with numpy alone.

The weights look trained: Gaussian as initialised, plus a part with decaying singular values that
grows and turns a little from step to step. The same seed writes the same bytes.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]

STRIDE = 1000  # steps between two checkpoints
DEVIATION = 0.02  # of the entries at initialisation
GROWN, DECAY = 64, 0.93  # dimensions of the trained part, and how fast they decay
DONE = "complete.json"


@dataclass(frozen=True)
class Model:
    """Sizes of a Llama-style model; the defaults are the standard case."""

    width: int = 384
    layers: int = 12
    hidden: int = 1536
    heads: int = 12
    kv_heads: int = 4
    vocabulary: int = 512
    rank: int = 16  # of the adapters

    @property
    def modules(self) -> dict[str, tuple[int, int]]:
        """Shape of every projection matrix by the path of its module."""
        narrow = self.width * self.kv_heads // self.heads
        shapes = {
            "self_attn.q_proj": (self.width, self.width),
            "self_attn.k_proj": (narrow, self.width),
            "self_attn.v_proj": (narrow, self.width),
            "self_attn.o_proj": (self.width, self.width),
            "mlp.gate_proj": (self.hidden, self.width),
            "mlp.up_proj": (self.hidden, self.width),
            "mlp.down_proj": (self.width, self.hidden),
        }
        layers = (f"model.layers.{i}" for i in range(self.layers))
        return {f"{layer}.{name}": shape for layer in layers for name, shape in shapes.items()}

    def config(self, dtype: str) -> dict[str, Any]:
        """Hugging Face's ``config.json``."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": self.width,
            "intermediate_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.width // self.heads,
            "vocab_size": self.vocabulary,
            "tie_word_embeddings": True,
            "torch_dtype": dtype,
        }


# Many checkpoints of a small model, as a long training of the demo leaves them.
DEMO = Model(width=64, layers=4, hidden=128, heads=4, kv_heads=2, vocabulary=64)
# One layer each.
LARGE = {
    "1B": Model(width=2048, layers=1, hidden=5632, heads=32, kv_heads=4),
    "7B": Model(width=4096, layers=1, hidden=11008, heads=32, kv_heads=32),
}
TINY = Model(width=24, layers=2, hidden=48, heads=6, kv_heads=2, vocabulary=16, rank=2)


def write_run(folder: Path, model: Model, *, dtype: str, count: int, seed: int = 2307) -> None:
    """Write a run of ``count`` checkpoints, ``step-00000000`` and so on, unless it exists.

    Parameters
    ----------
    dtype
        Storage format, ``float32`` or ``bfloat16``.
    """
    stamp = {"model": vars(model), "dtype": dtype, "count": count, "seed": seed}
    if _is_complete(folder, stamp):
        return
    weights = {name: _Trained(shape, _rng(seed, name)) for name, shape in model.modules.items()}
    for index in range(count):
        tensors = {
            f"{name}.weight": weight.at(index / max(count - 1, 1))
            for name, weight in weights.items()
        }
        tensors |= dict(_outside_layers(model, seed))
        at = folder / f"step-{index * STRIDE:08d}"
        _write_tensors(at / "model.safetensors", tensors, dtype)
        (at / "config.json").write_text(json.dumps(model.config(dtype), indent=2))
    (folder / DONE).write_text(json.dumps(stamp))


@dataclass(frozen=True)
class Experts:
    """Sizes of a mixture of many small experts: 18,672 matrices in a checkpoint."""

    width: int = 64
    layers: int = 48
    experts: int = 128
    hidden: int = 32

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """Shape of every matrix by its name."""
        wide, narrow = (self.hidden, self.width), (self.width, self.hidden)
        shapes: dict[str, tuple[int, int]] = {}
        for layer in (f"model.layers.{i}" for i in range(self.layers)):
            for expert in (f"{layer}.mlp.experts.{i}" for i in range(self.experts)):
                of = {"gate_proj": wide, "up_proj": wide, "down_proj": narrow}
                shapes |= {f"{expert}.{name}.weight": shape for name, shape in of.items()}
            shapes[f"{layer}.mlp.gate.weight"] = self.experts, self.width
            square = dict.fromkeys("qkvo", (self.width, self.width))
            shapes |= {f"{layer}.self_attn.{n}_proj.weight": s for n, s in square.items()}
        return shapes


def write_experts(folder: Path, model: Experts, *, count: int, seed: int = 2307) -> None:
    """Write checkpoints of a mixture of experts with Gaussian weights, unless they exist."""
    stamp = {"model": vars(model), "count": count, "seed": seed}
    if _is_complete(folder, stamp):
        return
    config = {"architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe"}
    for index in range(count):
        rng = _rng(seed, str(index))
        tensors = {
            name: rng.normal(scale=DEVIATION, size=shape).astype(np.float32)
            for name, shape in model.matrices.items()
        }
        at = folder / f"step-{index * STRIDE:08d}"
        _write_tensors(at / "model.safetensors", tensors, "float32")
        (at / "config.json").write_text(json.dumps(config))
    (folder / DONE).write_text(json.dumps(stamp))


def write_adapters(folder: Path, model: Model, *, seed: int = 2307) -> None:
    """Write a PEFT adapter with a pair of factors per projection matrix, unless it exists."""
    stamp = {"model": vars(model), "seed": seed}
    if _is_complete(folder, stamp):
        return
    tensors = {}
    for name, (rows, columns) in model.modules.items():
        rng = _rng(seed, name)
        decay = np.geomspace(1, 0.05, model.rank, dtype=np.float32)
        right = rng.normal(size=(model.rank, columns)).astype(np.float32) / np.sqrt(columns)
        left = rng.normal(size=(rows, model.rank)).astype(np.float32) * DEVIATION * decay
        tensors[f"base_model.model.{name}.lora_A.weight"] = right.astype(np.float32)
        tensors[f"base_model.model.{name}.lora_B.weight"] = left.astype(np.float32)
    at = folder / f"step-{STRIDE:08d}"
    _write_tensors(at / "adapter_model.safetensors", tensors, "float32")
    config = {"peft_type": "LORA", "r": model.rank, "lora_alpha": 2 * model.rank}
    (at / "adapter_config.json").write_text(json.dumps(config, indent=2))
    (folder / DONE).write_text(json.dumps(stamp))


class _Trained:
    """A weight matrix in the course of training."""

    def __init__(self, shape: tuple[int, int], rng: np.random.Generator) -> None:
        grown = min(GROWN, *shape)
        self._start = rng.normal(scale=DEVIATION, size=shape).astype(np.float32)
        self._left = rng.normal(size=(2, shape[0], grown)).astype(np.float32)
        self._right = rng.normal(size=(grown, shape[1])).astype(np.float32)
        edge = DEVIATION * (np.sqrt(shape[0]) + np.sqrt(shape[1]))  # of the Gaussian part
        lengths = np.sqrt(shape[0]) * np.sqrt(shape[1])  # of the random vectors
        self._sizes = (3 * edge / lengths * DECAY ** np.arange(grown)).astype(np.float32)

    def at(self, progress: float) -> Matrix:
        """The matrix after a share of the training, between 0 and 1."""
        turned = np.cos(progress) * self._left[0] + np.sin(progress) * self._left[1]
        grown = (turned * self._sizes).astype(np.float32) @ self._right
        values: Matrix = self._start + np.float32(np.sqrt(progress)) * grown
        return values


def _outside_layers(model: Model, seed: int) -> Iterator[tuple[str, Matrix]]:
    embedding = _rng(seed, "embed").normal(scale=DEVIATION, size=(model.vocabulary, model.width))
    yield "model.embed_tokens.weight", embedding.astype(np.float32)
    yield "model.norm.weight", np.ones(model.width, np.float32)
    for layer in range(model.layers):
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"model.layers.{layer}.{norm}.weight", np.ones(model.width, np.float32)


def _rng(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, *name.encode()])


def _is_complete(folder: Path, stamp: dict[str, Any]) -> bool:
    done = folder / DONE
    return done.is_file() and json.loads(done.read_text()) == stamp


def _write_tensors(path: Path, tensors: dict[str, Matrix], dtype: str) -> None:
    """Write a safetensors file: length of the header, header, data."""
    code = {"float32": "F32", "bfloat16": "BF16"}[dtype]
    stored = {n: rounded(values) if code == "BF16" else values for n, values in tensors.items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, values in stored.items():
        begin, end = end, end + values.nbytes
        header[name] = {"dtype": code, "shape": values.shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for values in stored.values():
            file.write(values.tobytes())


def rounded(values: Matrix) -> NDArray[np.uint16]:
    """Bits of the nearest bfloat16 numbers, ties to even."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def main() -> None:
    """Write the standard case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scratch", type=Path, default=Path("build/bench"))
    parser.add_argument("--count", type=int, default=5, help="checkpoints of a run")
    scratch, count = vars(parser.parse_args()).values()
    for dtype in ("float32", "bfloat16"):
        write_run(scratch / dtype, Model(), dtype=dtype, count=count)
    write_adapters(scratch / "adapters", Model())


if __name__ == "__main__":
    main()
