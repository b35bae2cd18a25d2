"""Eigenvalues in two stages over one, and an inverse over QR and an SVD, in one process.

    python -m benchmarks.large_matrices 1024 2048 4096

All take turns in processor seconds of one thread, on square Gaussian matrices as float32 stores
them. The first two begin with the Gram matrix; the others are what follows where that leaves small
singular values open.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable

import numpy as np

from rankscope.spectra.backends import NUMPY
from rankscope.spectra.bounds import Values
from rankscope.spectra.symmetric import BAND, two_stages, way


def rounds_of(size: int, rounds: int) -> list[dict[str, float]]:
    """Processor seconds of each method in each round; without two stages where they are missing."""
    matrix = np.random.default_rng(size).standard_normal((size, size)).astype(np.float32)
    wide = matrix.astype(np.float64)
    gram = wide @ wide.T
    calls: dict[str, Callable[[Values], object]] = {
        "one_stage": lambda _: np.linalg.eigvalsh(gram),
        "qr_svd": NUMPY.triangle,
        "inverse": NUMPY.inverse,
    }
    if (stages := two_stages()) is not None and size > BAND + 1:
        calls["two_stages"] = lambda _: stages.eigenvalues(gram)
    return [{name: _seconds(call, wide) for name, call in calls.items()} for _ in range(rounds)]


def _seconds(call: Callable[[Values], object], matrix: Values) -> float:
    start = time.process_time()
    call(matrix)
    return time.process_time() - start


def main() -> None:
    """Print the seconds of each method in each round, by size, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", type=int, nargs="*", default=[1024, 2048])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rounds_of(2 * BAND, 1)  # loads what is loaded on first use
    results = {}
    for size in options.sizes:
        results[size] = rounds_of(size, options.rounds)
        print(f"{size}: {results[size][-1]}", file=sys.stderr)
    lapack = two_stages()
    kernel = lapack.lapack.kernel if lapack else ""
    print(json.dumps({"eigenvalues": way(), "kernel": kernel, "sizes": results}))


if __name__ == "__main__":
    main()
