"""A table of subspaces as an analysis would give it, of two runs that were never trained."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pandas as pd

from rankscope.results.columns import SUBSPACE_COLUMNS
from rankscope.results.results import typed_subspaces

SHAPES = {"q": (64, 64), "up": (176, 64)}
LAYERS, STEPS, RANK = 3, (0, 100, 200, 400, 500), 4
MERGES = (100, 200, 400)
Row = dict[str, object]


def subspaces_of_two_runs() -> pd.DataFrame:
    """Weights of ``full`` and ``relora``, merges of ``relora``; the ``q`` of layer 0 has no gap."""
    rng = np.random.default_rng(5)
    rows = [
        {"run": run, "layer": layer, "role": role, "name": f"{layer}.{role}"} | found
        for run in ("full", "relora")
        for layer in range(LAYERS)
        for role, shape in SHAPES.items()
        for found in _of_matrix(
            rng, shape, has_merges=run == "relora", gap=role != "q" or layer > 0
        )
    ]
    return typed_subspaces(pd.DataFrame(rows, columns=list(SUBSPACE_COLUMNS)))


def _of_matrix(
    rng: np.random.Generator, shape: tuple[int, int], *, has_merges: bool, gap: bool
) -> Iterator[Row]:
    for before, step in itertools.pairwise(STEPS):
        for against in dict.fromkeys((before, STEPS[0])):
            pair = {"component": "weight", "step": step, "against": against, "status": "ok"}
            for side, dimensions in zip(("left", "right"), shape, strict=True):
                for k in (1, 4):
                    number = {"value": rng.uniform(0.2, 0.9), "error": 1e-9, "noise": 1e-3}
                    if not gap and k == 4:
                        number = {"status": "no-gap"}
                    at = pair | {"side": side, "k": k}
                    yield at | {"measure": "overlap", "null": rng.uniform(0.4, 0.95)} | number
                    yield at | {"measure": "update_energy", "null": k / dimensions} | number
            count = {"value": rng.integers(0, 5), "error": 1, "noise": 2, "null": 0.5}
            yield pair | {"measure": "intruders", "side": "left", "k": 10} | count
    for before, step in itertools.pairwise(MERGES if has_merges else ()):
        for against in dict.fromkeys((before, MERGES[0])):
            for side, dimensions in zip(("left", "right"), shape, strict=True):
                for k in (1, RANK):
                    yield {
                        **{"component": "merge", "measure": "overlap", "step": step},
                        **{"against": against, "side": side, "k": k, "null": k / dimensions},
                        **{"value": rng.uniform(0, 0.3), "error": 1e-9, "noise": 1e-6},
                        "status": "ok",
                    }
