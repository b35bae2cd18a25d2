"""The study's analysis: a full float32 SVD with vectors, repeated for each metric.

Matrices are read as by the floor, so that the difference is in the decompositions. It uses torch,
as the study does, or numpy if torch is not installed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.floor import iter_matrices, read

Values = NDArray[np.float32]

try:
    import torch
except ImportError:
    torch = None  # type: ignore[assignment]


def singular_values(matrix: Values) -> Values:
    """Singular values; the vectors are computed as well, and discarded."""
    if torch is None:
        return np.asarray(np.linalg.svd(matrix, full_matrices=False).S)
    return np.asarray(torch.svd(torch.from_numpy(matrix)).S)


def proportional_effective_rank(matrix: Values) -> float:
    """Exponential of the entropy of the normalised singular values, divided by their number."""
    s = singular_values(matrix)
    p = s / s.sum()
    return float(np.exp(-(p * np.log(p)).sum()) / len(s))


def condition_number(matrix: Values) -> float:
    """Largest singular value over the smallest."""
    s = singular_values(matrix)
    return float(s[0] / s[-1])


def main() -> None:
    """Measure a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    metrics = []
    for stored in iter_matrices(run):
        matrix = read(stored).astype(np.float32)
        metrics.append((proportional_effective_rank(matrix), condition_number(matrix)))
    print(f"{len(metrics)} matrices, {'numpy' if torch is None else torch.__version__}")


if __name__ == "__main__":
    main()
