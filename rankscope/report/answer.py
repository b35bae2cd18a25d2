"""The answer in three sentences: how much of the weights is used, where less, and what updates add.

They only say what the numbers show: the first and the last step of each run since its last break.
"""

from __future__ import annotations

import pandas as pd

from rankscope.results.results import Results

MOST_RUNS = 4  # each with its own numbers; of more, the extremes
WINDOWS = {
    "cycle": " of whole cycles",
    "within": " within cycles",
    "across": " across restarts",
    "": "",
}
SMALL = 0.01  # of PER: a fall below it is not worth a sentence


def answer(results: Results) -> list[str]:
    """Sentences with numbers; none where nothing was measured that they are about."""
    table = _since_breaks(results.metrics, results.breaks)
    unit = results.unit
    sentences = [_weights(table, unit), _largest_fall(table, unit), _updates(table)]
    return [sentence for sentence in sentences if sentence]


def _since_breaks(table: pd.DataFrame, breaks: dict[str, int]) -> pd.DataFrame:
    starts = table["run"].map(breaks).astype(float).fillna(float("-inf"))
    return table[table["step"].astype(float) >= starts]


def _weights(table: pd.DataFrame, unit: str) -> str:
    rows = table[(table["component"] == "weight") & table["per"].notna()]
    if rows.empty:
        return ""
    parts = {}
    for run, own in rows.groupby("run", sort=True):
        first, last = _ends(own)
        at_first = float(first["per"].mean())
        parts[str(run)] = (at_first, float(last["per"].mean()), _steps(first, last, unit))
    last = pd.concat([_ends(own)[1] for _, own in rows.groupby("run")])
    gaussian = float(last["per_gaussian"].mean())
    beside = f"random matrices of these shapes have {gaussian:.3f}"
    what = "The weights use, as the mean PER over all matrices,"
    if len(parts) > MOST_RUNS:
        ordered = sorted(parts, key=lambda run: parts[run][1])
        low, high = ordered[0], ordered[-1]
        return (
            f"{what} from {parts[low][1]:.3f} ({low}) to {parts[high][1]:.3f} ({high}) of their "
            f"dimensions at the end of {len(parts)} runs; {beside}."
        )
    moved = [
        f"{run} {before:.3f} → {after:.3f}" if steps else f"{run} {after:.3f}"
        for run, (before, after, steps) in parts.items()
    ]
    spans = dict.fromkeys(steps for *_, steps in parts.values() if steps)
    over = f" ({', '.join(spans)})" if spans else ""
    return f"{what} this share of their dimensions: {', '.join(moved)}{over}; {beside}."


def _largest_fall(table: pd.DataFrame, unit: str) -> str:
    rows = table[(table["component"] == "weight") & table["per"].notna()]
    falls = []
    for keys, own in rows.groupby(["run", "name", "expert"], dropna=False, sort=True):
        ordered = own.sort_values("step")
        ends = ordered["per"].iloc[[0, -1]].tolist()
        falls.append((ends[1] - ends[0], str(keys[0]), ordered))
    if not falls:
        return ""
    fall, run, ordered = min(falls, key=lambda one: one[0])
    if len(ordered) < 2:
        return ""
    if fall > -SMALL:
        return f"No matrix lost more than {SMALL:g} of its PER."
    per, last = ordered["per"].tolist(), ordered.iloc[-1]
    reached = next(step for step, value in zip(ordered["step"], per, strict=True)
                   if value <= per[0] + 0.8 * fall)  # fmt: skip
    where = "" if pd.isna(last["layer"]) else f"layer {last['layer']} "
    return (
        f"It fell most in {where}{last['role']} of {run}, {per[0]:.3f} → {per[-1]:.3f}, four "
        f"fifths of it by {unit} {reached}."
    )


def _updates(table: pd.DataFrame) -> str:
    """Updates that end last; of whole cycles where a run has any, of parts of cycles if not."""
    rows = table[(table["component"] == "update") & table["effective_rank"].notna()]
    rows = rows.assign(window=rows["window"].fillna(""))
    ranks: dict[str, float] = {}
    parts = []
    for run, own in rows.groupby("run", sort=True):
        window = next(kind for kind in WINDOWS if kind in set(own["window"]))
        _, last = _ends(own[own["window"] == window])
        dimensions = last[["rows", "cols"]].min(axis=1).median()
        ranks[str(run)] = rank = float(last["numerical_rank"].median())
        kappa = last["condition_number_r"].median()
        condition = "" if pd.isna(kappa) else f" and condition number {kappa:.3g}"
        parts.append(f"{run}{WINDOWS[window]} rank {rank:.0f} of {dimensions:.0f}{condition}")
    if not parts:
        return ""
    if len(parts) > MOST_RUNS:
        low, high = (chosen(ranks, key=lambda run: ranks[run]) for chosen in (min, max))
        between = f"from {ranks[low]:.0f} ({low}) to {ranks[high]:.0f} ({high})"
        return f"The rank of the median update at the end is {between}."
    return f"The median update at the end has: {'; '.join(parts)}."


def _ends(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    steps = rows["step"].to_numpy(int)
    return rows[steps == steps.min()], rows[steps == steps.max()]


def _steps(first: pd.DataFrame, last: pd.DataFrame, unit: str) -> str:
    start, end = (rows["step"].astype(int).min() for rows in (first, last))
    return "" if start == end else f"{unit} {start} → {end}"
