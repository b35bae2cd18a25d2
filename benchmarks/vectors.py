"""Singular vectors with certificates and nulls, over the values alone, in one process.

    python -m benchmarks.vectors build/bench/float32

``values`` are Gram products and eigenvalues in float64, the floor of every analysis. The other
times are what subspaces add to or take instead: all vectors of the short side, with the values, in
one decomposition; the same with the leading vectors of the long side; and comparing two steps that
are decomposed, where the null follows from a formula and where it has to be simulated. They take
turns, so that other load on the machine affects all of them alike. Matrices are read beforehand.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.floor import iter_matrices, read
from rankscope.spectra.bases import basis_of
from rankscope.spectra.bounds import Values
from rankscope.spectra.matrices import Dense
from rankscope.spectra.paired_subspaces import Decomposed, compared
from rankscope.spectra.subspace_measures import sizes

MOST = 64  # dimensions of the largest subspaces


class Pair(NamedTuple):
    """A matrix; itself, and two earlier ones, decomposed: close to it and further away."""

    matrix: Dense
    now: Decomposed
    close: Decomposed
    before: Decomposed


def values(pair: Pair) -> object:
    """Eigenvalues of the Gram matrix."""
    matrix = pair.matrix.values
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    return np.linalg.eigvalsh(wide @ wide.T)


def short_side(pair: Pair) -> object:
    """Values and all vectors of the short side, and one pair of leading vectors."""
    return basis_of(pair.matrix, 1)


def both_sides(pair: Pair) -> object:
    """The same with the leading vectors of the long side."""
    return basis_of(pair.matrix, MOST)


def by_formula(pair: Pair) -> object:
    """A comparison after a change so small that its null is of first order."""
    return compared(pair.now, pair.close, sizes(MOST), "change", key=("close",))


def by_simulation(pair: Pair) -> object:
    """A comparison over a checkpoint interval, whose null is simulated."""
    return compared(pair.now, pair.before, sizes(MOST), "change", key=("before",))


METHODS: tuple[Callable[[Pair], object], ...] = (
    values,
    short_side,
    both_sides,
    by_formula,
    by_simulation,
)


def read_pairs(run: Path, count: int) -> list[Pair]:
    """The first matrices of the last checkpoint, each with what it was one before."""
    by_step: dict[Path, list[Values]] = {}
    for stored in iter_matrices(run):
        if len(matrices := by_step.setdefault(stored[0], [])) < count:
            matrices.append(read(stored))
    earlier, later = list(by_step.values())[-2:]
    return [_pair(before, now) for before, now in zip(earlier, later, strict=True)]


def _pair(before: Values, now: Values) -> Pair:
    matrices = (now, now + 1e-9 * (before - now), before)
    found = [Decomposed.of(Dense.stored(one), MOST, "change") for one in matrices]
    return Pair(Dense.stored(now), *found)


def seconds(method: Callable[[Pair], object], pairs: list[Pair]) -> float:
    """Time that a method takes for all pairs."""
    start = time.perf_counter()
    for pair in pairs:
        method(pair)
    return time.perf_counter() - start


def main() -> None:
    """Print the seconds of each method in each round as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--matrices", type=int, default=7)
    options = parser.parse_args()
    pairs = read_pairs(options.run, options.matrices)
    for method in METHODS:
        method(pairs[0])  # loads what is loaded on first use
    rounds = [{m.__name__: seconds(m, pairs) for m in METHODS} for _ in range(options.rounds)]
    print(json.dumps({"matrices": len(pairs), "rounds": rounds}))


if __name__ == "__main__":
    main()
