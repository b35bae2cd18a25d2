"""One line per component and role of a run: its first step and its last, in a few numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import TypeVar

from rankscope.checkpoints.families.names import ROLES
from rankscope.metrics import noise_matters
from rankscope.results.measure import Row

Key = TypeVar("Key")
KINDS = ("component", "run", "window")


@dataclass(frozen=True)
class Line:
    """One component and role of a run, from its first step to its last; all layers together.

    An empty role stands for all roles together.

    Changes within a cycle, of whole cycles and across restarts are different objects on separate
    lines: ``window`` says which.

    ``steps`` are the first and the last, which may be the same. PER and effective rank are means
    over layers; rank and condition numbers are medians. The condition number is κ for weights,
    ``is_bound`` where it is only a lower bound; for all others it is κ over the rank, the only one
    that a matrix of low rank has.
    """

    run: str
    component: str
    role: str
    window: str
    steps: tuple[int, int]
    matrices: int
    per: tuple[float, float]
    effective_rank: tuple[float, float]
    rank: tuple[float | None, float | None]
    max_rank: float | None
    condition: tuple[float | None, float | None]
    is_bound: tuple[bool, bool]


def lines_by_role(ranked: Sequence[Row]) -> list[Line]:
    """The lines of rows that have a rank, by role."""
    groups = grouped(ranked, lambda row: tuple(row[name] or "" for name in (*KINDS, "role")))
    lines = [_line(rows, rows[0]["role"]) for rows in groups.values()]
    return sorted(lines, key=lambda line: ROLES.index(line.role))


def lines_overall(ranked: Sequence[Row]) -> list[Line]:
    """The lines of rows that have a rank, all roles together."""
    groups = grouped(ranked, lambda row: tuple(row[name] or "" for name in KINDS))
    return [_line(rows, "") for rows in groups.values()]


def grouped(rows: Iterable[Row], key: Callable[[Row], Key]) -> dict[Key, list[Row]]:
    """Rows by a key, in the order in which each key first occurs."""
    groups: dict[Key, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def ends_of(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Rows of the first step and those of the last."""
    first, last = (end(row["step"] for row in rows) for end in (min, max))
    return [r for r in rows if r["step"] == first], [r for r in rows if r["step"] == last]


def by_noise(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Rows of whose effective rank rounding can be more than 1 %, and the others."""
    per, resolved = (
        [math.nan if row[name] is None else row[name] for row in rows]
        for name in ("per", "per_resolved")
    )
    are_noisy = noise_matters(per, resolved).tolist()
    pairs = list(zip(rows, are_noisy, strict=True))
    return [row for row, noisy in pairs if noisy], [row for row, noisy in pairs if not noisy]


def _line(rows: list[Row], role: str) -> Line:
    first, last = ends = ends_of(rows)
    conditions = [_condition(end) for end in ends]
    effective = [fmean(row["effective_rank"] for row in end) for end in ends]
    return Line(
        **{name: rows[0][name] or "" for name in KINDS},
        role=role,
        steps=(first[0]["step"], last[0]["step"]),
        matrices=len(last),
        per=(fmean(row["per"] for row in first), fmean(row["per"] for row in last)),
        effective_rank=(effective[0], effective[1]),
        rank=(median_of(first, "numerical_rank"), median_of(last, "numerical_rank")),
        max_rank=median_of(last, "max_rank"),
        condition=(conditions[0][0], conditions[1][0]),
        is_bound=(conditions[0][1], conditions[1][1]),
    )


def median_of(rows: list[Row], column: str) -> float | None:
    """Median of the known values of a column; None if there are none."""
    known = [row[column] for row in rows if row[column] is not None]
    return float(median(known)) if known else None


def _condition(rows: list[Row]) -> tuple[float | None, bool]:
    """Median condition number, and whether it is a lower bound."""
    if rows[0]["component"] != "weight":
        return median_of(rows, "condition_number_r"), False
    middle = median_of(rows, "condition_number")
    bounds = [r for r in rows if r["condition_number_status"] == "lower-bound"]
    return middle, middle is not None and any(r["condition_number"] <= middle for r in bounds)
