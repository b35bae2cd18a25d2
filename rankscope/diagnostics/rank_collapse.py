"""Rank collapse: weights that use far fewer dimensions than they did, or than others do.

The others are the same projections of other layers, and the same weights in a run of full rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rankscope.diagnostics.evidence import Evidence, needs_spectra, rows_of
from rankscope.diagnostics.finding import Finding, Kind, Number, Unchecked

if TYPE_CHECKING:
    import pandas as pd

# PER of a weight at the last step over another PER. In ten healthy runs of the demonstration, full
# rank and ReLoRA, the lowest are 0.37 (of the start), 0.75 (siblings) and 0.50 (full rank).
OF_START, OF_SIBLINGS, OF_BASELINE = 1 / 4, 1 / 2, 1 / 3
FEWEST_SIBLINGS = 3

COLLAPSED = Kind(
    "rank-collapse",
    "warning",
    "These weights effectively use far fewer of their dimensions than the weights they are "
    "compared with: a few directions have outgrown all others.",
    "See when it began (figure per-weights). Common causes are too high a learning rate, and "
    "merges of the same directions again and again.",
)


@dataclass(frozen=True)
class Comparison:
    """PERs of a run's weights at the last step over others, where they are certainly too small.

    Attributes
    ----------
    name
        Of the ratio, in the numbers of the finding.
    other
        What the PERs are compared with, in words.
    ratios
        By matrix, lowest first.
    """

    name: str
    other: str
    ratios: pd.Series


def check_collapse(runs: Sequence[Evidence]) -> Iterator[Finding | Unchecked]:
    """Compare the last PER of every weight with its first, other layers, and full-rank runs."""
    weights = {one.run.name: rows for one in runs if (rows := _since_break(one)) is not None}
    full = {name: _at(weights[name], "last") for name in _full_rank(runs) if name in weights}
    for evidence in runs:
        rows = weights.get(evidence.run.name)
        if rows is None:
            yield needs_spectra(evidence, COLLAPSED.code)
            continue
        if rows.empty:
            continue
        last = _at(rows, "last")
        compared = [_of_start(rows, last), _of_layers(last)]
        if evidence.run.name not in full and full:
            compared.append(_of_baselines(last, full))
        if found := [one for one in compared if len(one.ratios)]:
            yield _finding(evidence, last, found)


def _since_break(evidence: Evidence) -> pd.DataFrame | None:
    """Weights with a PER from the last break on, before which another training ends."""
    rows = rows_of(evidence, "weight")
    breaks = [step.step for step in evidence.steps if step.breaks]
    return rows if rows is None or not breaks else rows[rows["step"] >= max(breaks)]


def _full_rank(runs: Sequence[Evidence]) -> Iterator[str]:
    for evidence in runs:
        if not any(moment.contents.adapted for moment in evidence.moments):
            yield evidence.run.name


def _at(rows: pd.DataFrame, end: str) -> pd.DataFrame:
    """The first or last row of every matrix, by its name."""
    groups = rows.sort_values("step").groupby("name", sort=False)
    return (groups.head(1) if end == "first" else groups.tail(1)).set_index("name")


def _of_start(rows: pd.DataFrame, last: pd.DataFrame) -> Comparison:
    first = _at(rows, "first")
    before = first["per"].where(first["step"] < last["step"].reindex(first.index))
    return _below(last, before, OF_START, "of_first", "their first PER")


def _of_layers(last: pd.DataFrame) -> Comparison:
    layers = last[last["layer"].notna()]
    groups = layers.groupby(["role", "rows", "cols"])["per"]
    others = groups.transform("median").where(groups.transform("count") >= FEWEST_SIBLINGS)
    return _below(layers, others, OF_SIBLINGS, "of_layers", "the median over layers")


def _of_baselines(last: pd.DataFrame, full: dict[str, pd.DataFrame]) -> Comparison:
    """With the mean of the full-rank runs that have the same matrices at the same step."""
    import pandas as pd

    columns = {}
    for name, rows in full.items():
        there = rows.reindex(last.index)
        same = (there[["rows", "cols", "step"]] == last[["rows", "cols", "step"]]).all(axis=1)
        if same.any():
            columns[name] = there["per"].where(same)
    names = f"{', '.join([*columns][:3])}{', …' if len(columns) > 3 else ''}"
    mean = pd.DataFrame(columns, index=last.index, dtype=float).mean(axis=1)
    return _below(last, mean, OF_BASELINE, "of_full_rank", f"the PER of full rank in {names}")


def _below(last: pd.DataFrame, other: pd.Series, limit: float, name: str, words: str) -> Comparison:
    """The matrices whose PER is certainly below this share of another."""
    most = last["per"] * (1 + last["per_error"].fillna(0))
    fallen = most < limit * other.reindex(last.index)
    return Comparison(name, words, (last["per"] / other.reindex(last.index))[fallen].sort_values())


def _finding(evidence: Evidence, last: pd.DataFrame, found: Sequence[Comparison]) -> Finding:
    """One finding for all comparisons; the matrix that is lowest in the first comes first."""
    names = list(dict.fromkeys(name for one in found for name in one.ratios.index))
    worst = names[0]
    per = float(last.loc[worst, "per"])
    numbers: dict[str, Number] = {"per": per, "matrices": len(names)}
    parts = []
    for one in found:
        count, least = len(one.ratios), float(one.ratios.iloc[0])
        numbers |= {one.name: least, f"{one.name}_matrices": count}
        parts.append(f"{count} relative to {one.other} (the lowest has {least:.0%} of it)")
    text = (
        f"{len(names)} of {len(last)} weights have a low PER, such as {per:.3f} in {worst}: "
        f"{', '.join(parts)}"
    )
    steps = map(int, last.loc[names, "step"])
    return COLLAPSED.at(evidence.place.of(steps, names), text, numbers)
