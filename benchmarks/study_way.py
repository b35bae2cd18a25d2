"""What the study's own analysis does: a full SVD with vectors in float32, again for each metric.

Reading is the floor's, so that the difference is the decompositions. With torch as in the study,
in numpy where torch is not installed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.floor import iter_projections, read

Values = NDArray[np.float32]

try:
    import torch
except ImportError:
    torch = None  # type: ignore[assignment]


def singular_values(matrix: Values) -> Values:
    """Singular values; the vectors are computed too, and thrown away."""
    if torch is None:
        return np.asarray(np.linalg.svd(matrix, full_matrices=False).S)
    return np.asarray(torch.svd(torch.from_numpy(matrix)).S)


def proportional_effective_rank(matrix: Values) -> float:
    """Exponential of the entropy of the normalised singular values, over their number."""
    s = singular_values(matrix)
    p = s / s.sum()
    return float(np.exp(-(p * np.log(p)).sum()) / len(s))


def condition_number(matrix: Values) -> float:
    """Largest over smallest singular value."""
    s = singular_values(matrix)
    return float(s[0] / s[-1])


def main() -> None:
    """Measure a run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    run = parser.parse_args().run
    found = []
    for stored in iter_projections(run):
        matrix = read(stored).astype(np.float32)
        found.append([metric(matrix) for metric in (proportional_effective_rank, condition_number)])
    print(f"{len(found)} matrices, {'numpy' if torch is None else torch.__version__}")


if __name__ == "__main__":
    main()
