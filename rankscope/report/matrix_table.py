"""The page's table of matrices: one row per matrix, with a small curve over its steps."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rankscope.metrics import noise_matters
from rankscope.results.results import Results

MOST_ROWS = 2000
IDENTITY = ("run", "component", "window", "layer", "role", "head", "expert", "name")
SHOWN = (
    *("step", "rows", "cols", "status", "per", "per_resolved", "per_gaussian"),
    *("numerical_rank", "max_rank"),
    *("condition_number", "condition_number_status", "condition_number_r"),
)
FIRST = ("weight", "base", "update", "merged_total", "merge", "adapter")
WIDTH, HEIGHT, MARGIN = 90, 20, 2  # of a curve, in CSS pixels


@dataclass(frozen=True)
class MatrixRow:
    """One matrix of a run over its steps: what it is, its last numbers, and its curve of PER."""

    run: str
    component: str
    place: str
    role: str
    name: str
    shape: str
    steps: str
    per_first: float | None
    per: float | None
    gaussian: float | None
    rank: str
    rank_number: float | None
    kappa: str
    kappa_number: float | None
    is_noisy: bool
    status: str
    path: str
    low: float | None
    high: float | None


def matrix_rows(results: Results) -> tuple[list[MatrixRow], int]:
    """Rows for at most `MOST_ROWS` matrices, and how many matrices there are.

    Weights and updates come before other components where not all fit.
    """
    there = results.distinct(["component"])["component"].tolist()
    known = [[name] for name in FIRST if name in there]
    others = [name for name in there if name not in FIRST]
    shown: list[MatrixRow] = []
    count = 0
    for components in (*known, *([others] if others else [])):
        rows = results.rows(IDENTITY, component=components)
        matrices = rows.assign(window=rows["window"].fillna("")).groupby(
            list(IDENTITY), dropna=False, sort=False
        )
        numbers = matrices.ngroup()
        count += matrices.ngroups
        is_shown = (numbers < MOST_ROWS - len(shown)).to_numpy()
        del rows, matrices
        if is_shown.any():
            shown += _rows(results, components, numbers, is_shown)
    return shown, count


def _rows(
    results: Results,
    components: list[str],
    numbers: pd.Series[int],
    is_shown: NDArray[np.bool_],
) -> list[MatrixRow]:
    """One row for each matrix that is shown, in the order of their numbers."""
    rows = results.rows((*IDENTITY, *SHOWN), component=components)
    places = np.flatnonzero(is_shown)
    matrices = numbers.to_numpy()[places]
    steps = rows["step"].to_numpy(np.int64)[places]
    order = np.lexsort((steps, matrices))  # of a few columns: all of them sorted are a copy
    ends = np.flatnonzero(np.diff(matrices[order], append=-1)) + 1
    last = rows.iloc[places[order[ends - 1]]]
    per = rows["per"].to_numpy(np.float64, na_value=np.nan)[places[order]]
    steps = steps[order].tolist()
    shown = last.assign(window=last["window"].fillna("")).to_dict("records")
    spans = [slice(start, end) for start, end in pairwise([0, *ends.tolist()])]
    return [_row(one, steps[at], per[at]) for one, at in zip(shown, spans, strict=True)]


def place_of(row: pd.Series[Any] | Mapping[Hashable, Any]) -> str:
    """Layer, head and expert of a row, as far as it has them, in words."""
    there = (word for word in ("layer", "head", "expert") if pd.notna(row[word]))
    return ", ".join(f"{word} {row[word]}" for word in there)


def _row(last: Mapping[Hashable, Any], steps: list[int], per: NDArray[np.float64]) -> MatrixRow:
    """What is shown of a matrix: its last row, and its PER at all its steps."""
    known = per[np.isfinite(per)]
    is_weight = last["component"] in ("weight", "base")
    kappa = _number(last["condition_number" if is_weight else "condition_number_r"])
    is_bound = is_weight and last["condition_number_status"] == "lower-bound"
    rank = _number(last["numerical_rank"])
    window = f" ({last['window']})" if last["window"] else ""
    return MatrixRow(
        run=str(last["run"]),
        component=f"{last['component']}{window}",
        place=place_of(last),
        role=str(last["role"]),
        name=str(last["name"]),
        shape=f"{last['rows']}×{last['cols']}",
        steps=f"{steps[0]}–{steps[-1]}" if len(steps) > 1 else f"{steps[0]}",
        per_first=float(known[0]) if known.size else None,
        per=_number(per[-1]),
        gaussian=_number(last["per_gaussian"]),
        rank="" if rank is None else f"{rank:.0f} of {last['max_rank']}",
        rank_number=rank,
        kappa="" if kappa is None else f"{'≥ ' if is_bound else ''}{kappa:.3g}",
        kappa_number=kappa,
        is_noisy=bool(noise_matters(*(_or_nan(last[name]) for name in ("per", "per_resolved")))),
        status=str(last["status"]),
        path=curve(np.array(steps, np.float64), per),
        low=float(known.min()) if known.size else None,
        high=float(known.max()) if known.size else None,
    )


def curve(steps: np.ndarray, values: np.ndarray) -> str:
    """SVG path of a curve in a box of `WIDTH` by `HEIGHT`, on an axis from 0 to 1.

    It is interrupted where a value is missing, and empty where all are of one step.
    """
    if len(steps) < 2 or steps[0] == steps[-1]:
        return ""
    across = MARGIN + (WIDTH - 2 * MARGIN) * (steps - steps[0]) / (steps[-1] - steps[0])
    down = HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * np.clip(values, 0, 1)
    parts, pen = [], "M"
    for x, y in zip(across.tolist(), down.tolist(), strict=True):
        if not np.isfinite(y):
            pen = "M"
            continue
        parts.append(f"{pen}{x:.1f} {y:.1f}")
        pen = "L"
    return "".join(parts)


def _number(value: object) -> float | None:
    if value is None or pd.isna(value):  # type: ignore[call-overload]
        return None
    return float(value)  # type: ignore[arg-type]


def _or_nan(value: object) -> float:
    number = _number(value)
    return math.nan if number is None else number
