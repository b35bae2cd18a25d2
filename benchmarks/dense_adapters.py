"""Spectra of a folder's adapters, from their factors and multiplied out, in one process.

    python -m benchmarks.dense_adapters build/bench/adapters/step-00001000

Three dense methods are compared: an SVD of the float32 product with vectors (as in the study), one
without, and the float64 Gram matrix of the float32 product. The methods take turns, so that other
load on the machine affects all of them alike. The factors are read beforehand.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

import rankscope as rs

Matrix = NDArray[np.float32]
Pair = tuple[Matrix, Matrix]  # scale·B and A


def factored(pair: Pair) -> object:
    """Spectrum with its certificate, from the factors."""
    return rs.spectrum(rs.LowRank(*pair))


def with_vectors(pair: Pair) -> object:
    """A full SVD of the product."""
    return np.linalg.svd(pair[0] @ pair[1], full_matrices=False)


def values_alone(pair: Pair) -> object:
    """Singular values of the product."""
    return np.linalg.svd(pair[0] @ pair[1], compute_uv=False)


def gram(pair: Pair) -> object:
    """Eigenvalues of the product's Gram matrix in float64."""
    product = (pair[0] @ pair[1]).astype(np.float64)
    wide = product if product.shape[0] <= product.shape[1] else product.T
    return np.linalg.eigvalsh(wide @ wide.T)


METHODS: tuple[Callable[[Pair], object], ...] = (factored, gram, values_alone, with_vectors)


def read_pairs(folder: Path) -> list[Pair]:
    """Factors of every module of a PEFT adapter, with the scale in the left one."""
    config = json.loads((folder / "adapter_config.json").read_text())
    scale = np.float32(config["lora_alpha"] / config["r"])
    tensors = load_file(folder / "adapter_model.safetensors")
    left = {name: values for name, values in tensors.items() if ".lora_B." in name}
    return [(scale * b, tensors[name.replace(".lora_B.", ".lora_A.")]) for name, b in left.items()]


def seconds(method: Callable[[Pair], object], pairs: list[Pair]) -> float:
    """Time that a method takes for all pairs."""
    start = time.perf_counter()
    for pair in pairs:
        method(pair)
    return time.perf_counter() - start


def main() -> None:
    """Print the seconds of each method in each round as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    pairs = read_pairs(options.folder)
    for method in METHODS:
        method(pairs[0])  # loads what is loaded on first use
    rounds = [{m.__name__: seconds(m, pairs) for m in METHODS} for _ in range(options.rounds)]
    print(json.dumps({"pairs": len(pairs), "rounds": rounds}))


if __name__ == "__main__":
    main()
