"""What the sentences of `answer` have in common: whose numbers they give, and in which words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pandas as pd

from rankscope.metrics import noise_matters
from rankscope.statistics.replicates import RUN_GROUP, at_common_steps

MOST_RUNS = 4  # each with its own numbers; of more, the extremes


def each_run(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Rows of each run, or at common steps of each group of runs, with how many runs it has."""
    if RUN_GROUP not in rows:
        yield from ((str(name), own) for name, own in rows.groupby("run", sort=True))
        return
    for name, own in rows[at_common_steps(rows, RUN_GROUP)].groupby(RUN_GROUP, sort=True):
        runs = own["run"].nunique()
        yield (f"{name} ({runs} runs)" if runs > 1 else str(name)), own


def last_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the last step."""
    is_last: pd.Series[bool] = rows["step"] == rows["step"].max()
    return rows.loc[is_last]


def in_words(values: Mapping[str, float], texts: Mapping[str, str]) -> str:
    """The text of each run with its name; of more than `MOST_RUNS`, of the extremes by value."""
    if len(values) > MOST_RUNS:
        low, high = extremes(values)
        return f"from {texts[low]} in {low} to {texts[high]} in {high}"
    parts = [f"{texts[name]} in {name}" for name in values]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def extremes(values: Mapping[str, float]) -> tuple[str, str]:
    """The names of the least and the greatest value."""
    at: Callable[[str], float] = values.__getitem__
    return min(values, key=at), max(values, key=at)


def span(values: list[float], digits: int = 3) -> str:
    """The least and the greatest of some numbers in words; one if they look the same."""
    low, high = (f"{end(values):.{digits}f}" for end in (min, max))
    return low if low == high else f"{low}–{high}"


def per_text(rows: pd.DataFrame) -> str:
    """Mean PER of some rows; where rounding noise matters, the two numbers that bracket it."""
    return _bracketed(rows["per"], rows["per_resolved"], digits=3)


def rank_text(rows: pd.DataFrame) -> str:
    """Mean effective rank of some rows, bracketed as in `per_text`."""
    rank = rows["effective_rank"]
    return _bracketed(rank, rank * rows["per_resolved"] / rows["per"], digits=2)


def _bracketed(values: pd.Series[float], resolved: pd.Series[float], *, digits: int) -> str:
    # No number for what is resolved means that nothing is.
    high, low = float(values.mean()), float(resolved.fillna(0.0).mean())
    return span([low, high] if noise_matters(high, low) else [high], digits)
