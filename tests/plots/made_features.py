"""Tables of representations as `represent` would give them, whose numbers are formulas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any

import pandas as pd

from rankscope.results.representation_tables import typed_representations, typed_similarities

STEPS = (0, 100, 200)
PLACES = ((-1, "embedding"), (0, "block"), (1, "block"), (2, "final"))
RUNS = ("full", "relora")
DIMENSIONS = 16
HALF = 0.5  # of an interval of RankMe
Row = dict[str, Any]


def rankme(run: str, step: int, layer: int) -> float:
    return 8 + layer + step / 100 + 2 * (run != "full")


def alike(*numbers: float) -> float:
    """A similarity that differs for all arguments of the tests."""
    return 0.9 - sum((0.05 + 0.003 * place) * number for place, number in enumerate(numbers))


def representations(**others: object) -> pd.DataFrame:
    rows = []
    for run in RUNS:
        for step in STEPS:
            for layer, at in PLACES:
                rank = rankme(run, step, layer)
                rows.append(
                    _place(run, step, layer, at)
                    | {"probe": "p", "status": "ok", "dimensions": DIMENSIONS, "tokens": 64}
                    | {"rankme": rank, "rankme_low": rank - HALF, "rankme_high": rank + HALF}
                    | {"rankme_gaussian": 15.5, "rankme_resolved": rank, "per": rank / DIMENSIONS}
                    | {"per_low": rank / 16 - 0.01, "per_high": rank / 16 + 0.01}
                    | {"alpha_req": 1.5, "mean_cosine": 0.1, "mean_norm": 10.0**layer}
                    | others
                )
    return typed_representations(pd.DataFrame(rows))


def similarities(runs: tuple[str, ...] = RUNS, places: Any = PLACES) -> pd.DataFrame:
    return typed_similarities(pd.DataFrame(list(_pairs(runs, places))))


def _pairs(runs: tuple[str, ...], places: Any) -> Iterator[Row]:
    for number, run in enumerate(runs):
        for step in STEPS:
            for layer, at in places:
                here = _place(run, step, layer, at)
                same = {"against_run": run, "against_layer": layer, "against_at": at}
                before = step - 100
                if step != STEPS[-1]:
                    close = alike(number, layer, 2 - step / 100)
                    yield here | same | _numbers("last", STEPS[-1], close)
                if before >= 0:
                    yield here | same | _numbers("previous", before, alike(number, layer))
                for other in runs[number + 1 :]:
                    close = alike(number, runs.index(other), layer, step / 100)
                    yield here | same | {"against_run": other} | _numbers("runs", step, close)
            for (layer, at), (other_layer, other_at) in combinations(places, 2):
                against = {"against_run": run, "against_layer": other_layer}
                close = alike(number, layer, other_layer, step / 100)
                yield (
                    _place(run, step, layer, at)
                    | against
                    | {"against_at": other_at}
                    | _numbers("layers", step, close)
                )


def _place(run: str, step: int, layer: int, at: str) -> Row:
    return {"run": run, "step": step, "text": "novels", "features": "all"} | {
        "layer": layer,
        "at": at,
    }


def _numbers(comparison: str, step: int, value: float) -> Mapping[str, Any]:
    found = {"comparison": comparison, "against_step": step, "status": "ok", "tokens": 64}
    found |= {"cka": value, "cka_low": value - 0.01, "cka_high": value + 0.01}
    return found | {"cka_biased": value + 0.02, "svcca": value, "svcca_chance": 0.3}
