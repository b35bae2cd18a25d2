"""Rank collapse: weights that use far fewer dimensions than they did, or than others do.

The others are the same projections of other layers, and the same weights in a run of full rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rankscope.diagnostics.evidence import Evidence, rows_of
from rankscope.diagnostics.finding import Finding, Kind, Unchecked

if TYPE_CHECKING:
    import pandas as pd

# PER of a weight at the last step over another PER. In ten healthy runs of the demonstration, full
# rank and ReLoRA, the lowest are 0.37 (of the start), 0.75 (siblings) and 0.50 (full rank).
OF_START, OF_SIBLINGS, OF_BASELINE = 1 / 4, 1 / 2, 1 / 3
FEWEST_SIBLINGS = 3
WHERE = ["layer", "role", "expert", "name"]

COLLAPSED = Kind(
    "rank-collapse",
    "warning",
    "These weights effectively use far fewer of their dimensions than what they are compared "
    "with: a few directions have outgrown all others.",
    "Look when it began (figure per-weights). Common causes are too high a learning rate, and "
    "merges of the same directions again and again.",
)


def check_collapse(evidence: Evidence) -> Iterator[Finding | Unchecked]:
    """Compare the last PER of every weight with its first, and with other layers of its role."""
    rows = rows_of(evidence, "weight")
    if rows is None:
        reason = "needs spectra: give `results`"
        yield Unchecked(evidence.run.name, COLLAPSED.code, reason)
        return
    last, first = _at(rows, "last"), _at(rows, "first")
    if last.empty:
        return
    both = last.merge(first, on="name", suffixes=("", "_before"))
    both = both[both["step_before"] < both["step"]]
    yield from _found(evidence, both, both["per_before"], OF_START, "of its first PER")
    layers = last[last["layer"].notna()]
    groups = layers.groupby(["role", "rows", "cols"])["per"]
    siblings = groups.transform("median").where(groups.transform("count") >= FEWEST_SIBLINGS)
    words = "of the median PER of other layers"
    yield from _found(evidence, layers, siblings, OF_SIBLINGS, words)


def compared_with_baselines(runs: list[Evidence]) -> Iterator[Finding]:
    """Compare low-rank runs with the full-rank runs beside them, at the last step of both."""
    low = [one for one in runs if _is_low_rank(one)]
    full = [one for one in runs if one not in low and rows_of(one, "weight") is not None]
    for one in low:
        rows = rows_of(one, "weight")
        if rows is None or rows.empty or not full:
            continue
        last = _at(rows, "last").set_index("name")
        others = [_at(found, "last") for f in full if (found := rows_of(f, "weight")) is not None]
        columns = [other.set_index("name") for other in others]
        fits = [c[["per", "rows", "cols", "step"]].reindex(last.index) for c in columns]
        same = [
            f["per"].where((f["rows"] == last["rows"]) & (f["step"] == last["step"])) for f in fits
        ]
        baseline = sum(same[1:], same[0]) / len(same)
        words = f"of the PER in {', '.join(f.run.name for f in full[:3])}, of full rank"
        yield from _found(
            one, last.reset_index(), baseline.reset_index(drop=True), OF_BASELINE, words
        )


def _is_low_rank(evidence: Evidence) -> bool:
    return any(moment.contents.adapted for moment in evidence.moments)


def _at(rows: pd.DataFrame, end: str) -> pd.DataFrame:
    """The first or last row of every matrix."""
    groups = rows.sort_values("step").groupby("name", sort=False)
    return (groups.head(1) if end == "first" else groups.tail(1)).reset_index(drop=True)


def _found(
    evidence: Evidence, last: pd.DataFrame, other: pd.Series, limit: float, words: str
) -> Iterator[Finding]:
    """A finding for the matrices whose PER is certainly below this share of another."""
    most = last["per"] * (1 + last["per_error"].fillna(0))
    fallen = last[most < limit * other]
    if fallen.empty:
        return
    ratio = (fallen["per"] / other[fallen.index]).sort_values()
    worst = fallen.loc[ratio.index[0]]
    text = (
        f"PER {worst['per']:.3f} in {worst['name']}, {ratio.iloc[0]:.0%} {words} "
        f"({float(other[ratio.index[0]]):.3f})"
    )
    names = [worst["name"], *(name for name in fallen["name"] if name != worst["name"])]
    numbers = {"per": float(worst["per"]), "ratio": float(ratio.iloc[0]), "matrices": len(names)}
    yield COLLAPSED.at(evidence.place.of(map(int, fallen["step"]), names), text, numbers)
