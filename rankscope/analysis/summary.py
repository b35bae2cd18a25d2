"""The answer in brief: how PER and condition numbers moved, and what stands out."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import pandas as pd

from rankscope.checkpoints.families import ROLES


@dataclass(frozen=True)
class Line:
    """One component and role of a run, from its first step to its last; layers together.

    PER is the mean over layers, rank and condition numbers are medians. The condition number is
    κ for weights, ``is_bound`` where it is only known from below; for all others it is κ over the
    rank, since what trains with low rank has no other.
    """

    run: str
    component: str
    role: str
    matrices: int
    per: tuple[float, float]
    rank: tuple[float, float]
    max_rank: float
    condition: tuple[float, float]
    is_bound: tuple[bool, bool]


@dataclass(frozen=True)
class Summary:
    """Lines for a table, and findings in words, the most striking first."""

    lines: list[Line]
    findings: list[str]


def summarise(table: pd.DataFrame) -> Summary:
    """Summarise a table of `rankscope.analyze`; rows without a rank count for nothing."""
    ranked = table[table["effective_rank"].notna()]
    lines = []
    for (run, component, role), rows in ranked.groupby(
        ["run", "component", "role"], observed=True, sort=False
    ):
        lines.append(_line(str(run), str(component), str(role), rows))
    lines.sort(key=lambda line: ROLES.index(line.role))
    return Summary(lines, [*_falls(ranked), *_update_ranks(ranked), *_limits(table)])


def _line(run: str, component: str, role: str, rows: pd.DataFrame) -> Line:
    first = rows[rows["step"] == rows["step"].min()]
    last = rows[rows["step"] == rows["step"].max()]
    ends = (first, last)
    conditions = [_condition(end) for end in ends]
    return Line(
        run,
        component,
        role,
        len(last),
        per=(float(first["per"].mean()), float(last["per"].mean())),
        rank=(float(first["numerical_rank"].median()), float(last["numerical_rank"].median())),
        max_rank=float(last["max_rank"].median()),
        condition=(conditions[0][0], conditions[1][0]),
        is_bound=(conditions[0][1], conditions[1][1]),
    )


def _condition(rows: pd.DataFrame) -> tuple[float, bool]:
    """Median condition number, and whether it is a lower bound."""
    if not (rows["component"] == "weight").all():
        return float(rows["condition_number_r"].median()), False
    median = float(rows["condition_number"].median())
    bound = rows.loc[rows["condition_number_status"] == "lower-bound", "condition_number"]
    return median, bool((bound <= median).any())


def _falls(ranked: pd.DataFrame) -> list[str]:
    """The weight matrix of each run whose PER fell most."""
    found = []
    for run, rows in ranked[ranked["component"] == "weight"].groupby("run", sort=False):
        series = rows.sort_values("step").groupby("name", sort=False)
        change = series["per"].last() - series["per"].first()
        if change.empty or not change.min() < -0.01:
            continue
        name = str(change.idxmin())
        before, after = series["per"].first().loc[name], series["per"].last().loc[name]
        found.append(
            f"{run}: PER of weights fell most in {name}, {before:.3f} → {after:.3f}; "
            f"mean over matrices {series['per'].first().mean():.3f} → "
            f"{series['per'].last().mean():.3f}"
        )
    return found


def _update_ranks(ranked: pd.DataFrame) -> list[str]:
    """How much of their dimensions the updates of each run use at the end."""
    updates = ranked[ranked["component"] == "update"]
    found = []
    for run, rows in updates.groupby("run", sort=False):
        last = rows[rows["step"] == rows["step"].max()]
        rank = last["numerical_rank"].median()
        dimensions = last[["rows", "cols"]].min(axis=1).median()
        found.append(
            f"{run}: updates of the last interval have PER {last['per'].mean():.3f} and rank "
            f"{rank:.0f} of {dimensions:.0f} (median)"
        )
    merged = ranked[ranked["component"] == "merged_total"]
    for run, rows in merged.groupby("run", sort=False):
        last = rows[rows["step"] == rows["step"].max()]
        found.append(
            f"{run}: after {rows['step'].nunique()} merges their sum has rank "
            f"{last['numerical_rank'].median():.0f} and effective rank "
            f"{last['effective_rank'].mean():.1f}"
        )
    return found


def _limits(table: pd.DataFrame) -> list[str]:
    """What the numbers cannot say."""
    found = []
    zero = table[table["status"] == "zero"]
    if len(zero):
        counts = Counter(zip(zero["run"], zero["component"], strict=True))
        named = ", ".join(f"{run} {part} ({count})" for (run, part), count in counts.items())
        found.append(f"zero matrices, which have no rank: {named}")
    share = table["noise_share"].fillna(0).clip(lower=0, upper=1)
    dimensions = table[["rows", "cols"]].min(axis=1).astype(float).clip(lower=1)
    entropy = [
        s * math.log(q / s) if s > 0 else 0.0 for s, q in zip(share, dimensions, strict=True)
    ]
    noisy = table[pd.Series(entropy, index=table.index) > 0.01]
    for (run, component), rows in noisy.groupby(["run", "component"], sort=False):
        found.append(
            f"{run}: PER of {len(rows)} {component} matrices may be rounding noise of their "
            f"{rows['dtype'].mode()[0]} storage: see noise_share"
        )
    return found
