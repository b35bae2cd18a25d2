"""Sentences of the answer on merges: what they add up to, and whether they go the same way."""

from __future__ import annotations

import pandas as pd

from rankscope.report.runs_in_words import each_run, in_words, last_rows, rank_text, span
from rankscope.statistics.replicates import RUN_GROUP
from rankscope.statistics.subspace_means import at_whole_rank, comparisons, has_comparisons, shares

SIDES = ("left", "right")  # what a matrix writes to, and what it reads from


def merge_sentences(table: pd.DataFrame, subspaces: pd.DataFrame) -> list[str]:
    """What the tables say of merges; empty strings where they say nothing."""
    return [_sums(table), _overlaps(subspaces)]


def _sums(table: pd.DataFrame) -> str:
    """The rank of all merges together, beside the most that they can have."""
    rows = table[(table["component"] == "merged_total") & table["effective_rank"].notna()]
    ranks, texts = {}, {}
    for name, own in each_run(rows):
        last, merges = last_rows(own), own["step"].nunique()
        ranks[name] = float(last["effective_rank"].mean())
        most = f"{last['max_rank'].mean():.0f}"
        texts[name] = (
            f"{rank_text(last)} of at most {most} after {merges} merge{'s'[: merges != 1]}"
        )
    if not ranks:
        return ""
    return (
        f"The sum of all merges has effective rank (mean over matrices) {in_words(ranks, texts)}."
    )


def _overlaps(subspaces: pd.DataFrame) -> str:
    """How far the directions of each merge overlap with those of the previous one."""
    if not has_comparisons(subspaces, "overlap", "merge"):
        return ""
    rows = at_whole_rank(comparisons(subspaces, "overlap", component="merge"))
    hue = RUN_GROUP if RUN_GROUP in rows else "run"
    # One point for all merges and matrices of a series and side.
    points = {
        name: [shares(own[own["side"] == side].assign(all=0), hue=hue, x="all") for side in SIDES]
        for name, own in each_run(rows)
    }
    found = {name: pd.concat(both) for name, both in points.items() if all(map(len, both))}
    if not found:
        return ""
    overlaps = {name: float(both["value"].mean()) for name, both in found.items()}
    texts = {name: _both_sides(both["low"], both["high"]) for name, both in found.items()}
    nulls = [both["null"].tolist() for both in found.values()]
    chance = " and ".join(span(list(side), 2) for side in zip(*nulls, strict=True))
    return (
        "The column and row spaces of a merge overlap with those of the previous merge by (means "
        f"over matrices) {in_words(overlaps, texts)}; identical spaces have 1, and unrelated "
        f"ones {chance}."
    )


def _both_sides(low: pd.Series[float], high: pd.Series[float]) -> str:
    return " and ".join(span(list(ends), 2) for ends in zip(low, high, strict=True))
