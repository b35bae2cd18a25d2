"""The answer in three sentences: how much of the weights is used, where less, and what updates add.

They only say what the numbers show: the first and the last step of each run since its last break.
Where runs were grouped (`rankscope.grouped`), they are about the groups, at common steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pandas as pd

from rankscope.report.matrix_table import place_of
from rankscope.results.results import Results
from rankscope.statistics.replicates import RUN_GROUP, at_common_steps

MOST_RUNS = 4  # each with its own numbers; of more, the extremes
WINDOWS = {
    "cycle": "whole cycles",
    "within": "within cycles",
    "across": "across restarts",
    "": "",
}
SMALL = 0.01  # of PER: a fall below it is not worth a sentence


def answer(results: Results) -> list[str]:
    """Sentences with numbers; none where nothing was measured that they are about."""
    table = _since_breaks(results.metrics, results.breaks)
    unit = results.unit
    used = _weights(table, unit) or _adapters(table)
    sentences = [used, _largest_fall(table, unit), _updates(table)]
    return [sentence for sentence in sentences if sentence]


def _since_breaks(table: pd.DataFrame, breaks: dict[str, int]) -> pd.DataFrame:
    starts = table["run"].map(breaks).astype(float).fillna(float("-inf"))
    return table[table["step"].astype(float) >= starts]


def _weights(table: pd.DataFrame, unit: str) -> str:
    series = {name: _at_both_ends(own) for name, own in _series(table, "weight", "per")}
    series = {name: ends for name, ends in series.items() if len(ends[1])}
    if not series:
        return ""
    random = [float(last["per_gaussian"].mean()) for _, last in series.values()]
    beside = f"random matrices of these shapes have {_range(random)}"
    final = {name: float(last["per"].mean()) for name, (_, last) in series.items()}
    if len(series) > MOST_RUNS:
        low, high = _extremes(final)
        return (
            f"At the end of {len(series)} runs, the weights use from {final[low]:.3f} ({low}) to "
            f"{final[high]:.3f} ({high}) of their dimensions (PER, mean over matrices); {beside}."
        )
    spans = {name: _span(*ends, unit) for name, ends in series.items()}
    is_one = len(set(spans.values())) == 1
    moved = [
        (f"{name} {first['per'].mean():.3f} → {final[name]:.3f}" if spans[name] else
         f"{name} {final[name]:.3f}") + ("" if is_one or not spans[name] else f" ({spans[name]})")
        for name, (first, _) in series.items()
    ]  # fmt: skip
    over = next(iter(spans.values())) if is_one else ""
    return (
        "The weights use this share of their dimensions (PER, mean over matrices"
        f"{f', {over}' if over else ''}): {', '.join(moved)}; {beside}."
    )


def _largest_fall(table: pd.DataFrame, unit: str) -> str:
    rows = table[(table["component"] == "weight") & table["per"].notna()]
    series = [own.sort_values("step") for _, own in rows.groupby(["run", "name"], sort=True)]
    series = [own for own in series if len(own) > 1]
    if not series:
        return ""
    fallen = min(series, key=lambda own: own["per"].iloc[-1] - own["per"].iloc[0])
    per, last = fallen["per"].tolist(), fallen.iloc[-1]
    fall = per[-1] - per[0]
    if fall > -SMALL:
        return f"The PER of no weight matrix fell by more than {SMALL:g}."
    reached = next(step for step, value in zip(fallen["step"], per, strict=True)
                   if value <= per[0] + 0.8 * fall)  # fmt: skip
    by = f", four fifths of it by {unit} {reached}" if len(per) > 2 else ""
    place = place_of(last)
    where = f"{last['role']} ({place})" if place else str(last["role"])
    return f"PER fell most in {where} of {last['run']}: {per[0]:.3f} → {per[-1]:.3f}{by}."


def _updates(table: pd.DataFrame) -> str:
    """Updates that end last; of whole cycles where a run has any, of parts of cycles if not."""
    ranks: dict[str, float] = {}
    parts, kinds = {}, {}
    for name, every in _series(table, "update", "effective_rank"):
        own = every.assign(window=every["window"].fillna(""))
        window = next(kind for kind in WINDOWS if kind in set(own["window"]))
        last = _last(own[own["window"] == window])
        dimensions = last[["rows", "cols"]].min(axis=1).median()
        ranks[name] = rank = float(last["numerical_rank"].median())
        kinds[name] = f"{name}, {WINDOWS[window]}" if window else name
        kappa = last["condition_number_r"].median()
        condition = "" if pd.isna(kappa) else f" and κ over rank {kappa:.3g}"
        parts[name] = f"rank {rank:.0f} of {dimensions:.0f}{condition} in {kinds[name]}"
    if not parts:
        return ""
    if len(parts) > MOST_RUNS:
        low, high = _extremes(ranks)
        return (
            f"The median rank of the last updates is from {ranks[low]:.0f} ({kinds[low]}) to "
            f"{ranks[high]:.0f} ({kinds[high]})."
        )
    return f"The last updates have, as medians over matrices, {'; '.join(parts.values())}."


def _adapters(table: pd.DataFrame) -> str:
    """Of adapters, where no run has weights."""
    parts = []
    for name, own in _series(table, "adapter", "effective_rank"):
        last = _last(own)
        effective, most = float(last["effective_rank"].mean()), float(last["max_rank"].median())
        parts.append(f"{effective:.2f} of {most:.0f} in {name}")
    if len(parts) > MOST_RUNS:
        parts = [*parts[:MOST_RUNS], f"and {len(parts) - MOST_RUNS} other runs are in the table"]
    what = "The adapters at the end have effective rank (mean over matrices)"
    return f"{what} {', '.join(parts)}." if parts else ""


def _series(table: pd.DataFrame, component: str, column: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Rows of each run, or of each group of runs with how many they are, that have a value."""
    rows = table[(table["component"] == component) & table[column].notna()]
    if RUN_GROUP not in rows:
        yield from ((str(name), own) for name, own in rows.groupby("run", sort=True))
        return
    for name, own in rows[at_common_steps(rows, RUN_GROUP)].groupby(RUN_GROUP, sort=True):
        runs = own["run"].nunique()
        yield (f"{name} ({runs} runs)" if runs > 1 else str(name)), own


def _last(rows: pd.DataFrame) -> pd.DataFrame:
    is_last: pd.Series[bool] = rows["step"] == rows["step"].max()
    return rows.loc[is_last]


def _at_both_ends(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of the first step and of the last, of the matrices that have both."""
    ends = [rows[rows["step"] == end] for end in (rows["step"].min(), rows["step"].max())]
    first, last = (end.set_index(["run", "name"]) for end in ends)
    return first[first.index.isin(last.index)], last[last.index.isin(first.index)]


def _extremes(values: dict[str, float]) -> tuple[str, str]:
    at: Callable[[str], float] = values.__getitem__
    return min(values, key=at), max(values, key=at)


def _range(values: list[float]) -> str:
    low, high = (f"{end(values):.3f}" for end in (min, max))
    return low if low == high else f"{low} to {high}"


def _span(first: pd.DataFrame, last: pd.DataFrame, unit: str) -> str:
    start, end = (int(rows["step"].min()) for rows in (first, last))
    return "" if start == end else f"{unit} {start} → {end}"
