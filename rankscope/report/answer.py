"""The answer in a few sentences: what the runs use of their weights, and what their updates add.

They only say what the numbers show: the first and the last step of each run since its last break.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pandas as pd

from rankscope.plots.gallery import selected
from rankscope.report.answer_on_features import energy_sentence, feature_sentences
from rankscope.report.answer_on_losses import loss_sentence
from rankscope.report.answer_on_merges import merge_sentences
from rankscope.report.matrix_table import place_of
from rankscope.report.runs_in_words import (
    MOST_RUNS,
    each_run,
    extremes,
    in_words,
    last_rows,
    per_text,
    rank_text,
    span,
)
from rankscope.results.results import Results, open_results
from rankscope.statistics.replicates import RUN_GROUP, groups_of

WINDOWS = {
    "cycle": "whole cycles",
    "within": "within cycles",
    "across": "across restarts",
    "": "",
}
SINGLE_RUNS = (
    "These are single runs: another seed or learning rate of one method may differ by as much as "
    "two methods do here."
)
# Columns of the metrics table that sentences take.
TAKEN = (
    *("run", "step", "layer", "role", "component", "head", "expert", "name", "window"),
    *("rows", "cols", "effective_rank", "per", "per_resolved", "per_gaussian"),
    *("max_rank", "numerical_rank", "condition_number_r"),
)
MATRIX = ["run", "name", "head", "expert"]
SMALL = 0.01  # of PER: a fall below it is not worth a sentence


def answer(
    results: str | Path | Results, *, runs: Collection[str] = (), group: str | None = None
) -> list[str]:
    """Say in a few sentences what the results show.

    The sentences cover: how much of their dimensions the weights use, beside random matrices, and
    where less; the rank of the last updates; the rank that the merges of a ReLoRA run add up to,
    how far successive ones repeat each other, and what restarts do to the loss; the rank of the
    features after the last block, how similar those of two runs are, and whether updates lie where
    the energy of the weights' inputs is; and the loss at which the runs end.

    Parameters
    ----------
    results
        A folder that `analyze` or `evaluate` wrote, or what `open_results` returns.
    runs
        Only these runs, or groups of runs; all if none is named.
    group
        A pattern that groups runs into replicates, as in `rankscope.grouped`: sentences are then
        about groups, at steps that all of their runs have.

    Returns
    -------
    Strings of one or two sentences; none about what was not measured or logged. For more than four
    runs or groups, only the extremes are given. A number that rounding noise may change by more
    than 1 % is given as the two values between which it lies.

    Raises
    ------
    WrongSettingError
        If there is nothing at ``results``, it has no such run, or the pattern matches none.
    RankscopeError
        If the folder holds no results.

    Examples
    --------
    >>> import rankscope as rs
    >>> for sentence in rs.answer("results"):
    ...     print(sentence)
    The weights use this share of their dimensions (PER, mean over matrices): ...
    """
    opened = results if isinstance(results, Results) else open_results(results)
    chosen = selected(opened, runs=_members(opened, runs, group), group=group)
    unit = opened.unit

    def rows(component: str) -> pd.DataFrame:
        return _since_breaks(chosen.rows(TAKEN, component=component), opened.breaks)

    weights = rows("weight")
    used = _weights(weights, unit) or _adapters(rows("adapter"))
    fall = _largest_fall(weights, unit)
    del weights  # before others are read
    sentences = [
        *(used, fall, _updates(rows("update"))),
        *merge_sentences(rows("merged_total"), _since_breaks(chosen.subspaces, opened.breaks)),
        *feature_sentences(
            _since_breaks(chosen.representations, opened.breaks), chosen.similarities, unit
        ),
        energy_sentence(_since_breaks(chosen.input_energies, opened.breaks)),
        loss_sentence(chosen.evaluation, chosen.training, unit),
    ]
    said = [sentence for sentence in sentences if sentence]
    return [*said, SINGLE_RUNS] if said and _are_single(chosen) else said


def _members(results: Results, named: Collection[str], group: str | None) -> Collection[str]:
    """The runs that are named, by their own names or by those of their groups; unknown ones too."""
    if not named or group is None:
        return named
    groups = groups_of(map(str, results.distinct(["run"])["run"]), group)
    unknown = [name for name in named if name not in groups.values()]
    return [*(run for run, name in groups.items() if name in named), *unknown]


def _are_single(results: Results) -> bool:
    """Whether there are several runs, and no group has two of them."""
    tables = [results.distinct(["run"]), results.evaluation, results.representations]
    names = ["run", *([RUN_GROUP] if RUN_GROUP in tables[0] else [])]
    runs = pd.concat([table[names].drop_duplicates() for table in tables]).drop_duplicates()
    return len(runs) > 1 and not (RUN_GROUP in runs and runs[RUN_GROUP].duplicated().any())


def _since_breaks(table: pd.DataFrame, breaks: dict[str, int]) -> pd.DataFrame:
    """Rows of each run from the step on at which its last model begins."""
    if not {*breaks} & {*table["run"].unique()}:
        return table
    starts = table["run"].map(breaks).astype(float).fillna(float("-inf"))
    return _those(table, table["step"].astype(float) >= starts)


def _those(table: pd.DataFrame, flags: pd.Series[bool]) -> pd.DataFrame:
    """Some rows of a table; not a copy, which may be large, where they are all."""
    return table if flags.all() else table[flags]


def _weights(table: pd.DataFrame, unit: str) -> str:
    rows = _those(table, (table["component"] == "weight") & table["per"].notna())
    series = {name: _at_both_ends(own) for name, own in each_run(rows)}
    series = {name: ends for name, ends in series.items() if len(ends[1])}
    if not series:
        return ""
    random = [float(last["per_gaussian"].mean()) for _, last in series.values()]
    beside = f"random matrices of these shapes have {span(random)}"
    final = {name: float(last["per"].mean()) for name, (_, last) in series.items()}
    texts = {name: per_text(last) for name, (_, last) in series.items()}
    if len(series) > MOST_RUNS:
        return (
            f"At the end of {len(series)} runs, the weights use this share of their dimensions "
            f"(PER, mean over matrices): {in_words(final, texts)}; {beside}."
        )
    spans = {name: _span(*ends, unit) for name, ends in series.items()}
    is_one = len(set(spans.values())) == 1
    moved = [
        (f"{name} {per_text(first)} → {texts[name]}" if spans[name] else f"{name} {texts[name]}")
        + ("" if is_one or not spans[name] else f" ({spans[name]})")
        for name, (first, _) in series.items()
    ]
    over = next(iter(spans.values())) if is_one else ""
    return (
        "The weights use this share of their dimensions (PER, mean over matrices"
        f"{f', {over}' if over else ''}): {', '.join(moved)}; {beside}."
    )


def _largest_fall(table: pd.DataFrame, unit: str) -> str:
    rows = _those(table, (table["component"] == "weight") & table["per"].notna())
    numbers = rows.groupby(MATRIX, sort=True, dropna=False).ngroup()
    order = rows["step"].sort_values(kind="stable").index
    of_matrix = rows["per"][order].groupby(numbers[order])
    falls = (of_matrix.last() - of_matrix.first())[of_matrix.size() > 1]
    if falls.empty:
        return ""
    fallen = rows[numbers == falls.idxmin()].sort_values("step", kind="stable")
    per, last = fallen["per"].tolist(), fallen.iloc[-1]
    fall = per[-1] - per[0]
    if fall > -SMALL:
        return f"The PER of no weight matrix fell by more than {SMALL:g}."
    reached = next(step for step, value in zip(fallen["step"], per, strict=True)
                   if value <= per[0] + 0.8 * fall)  # fmt: skip
    by = f", four fifths of it by {unit} {reached}" if len(per) > 2 else ""
    place = place_of(last)
    where = f"{last['role']} ({place})" if place else str(last["role"])
    ends = " → ".join(per_text(fallen.iloc[[end]]) for end in (0, -1))
    return f"PER fell most in {where} of {last['run']}: {ends}{by}."


def _updates(table: pd.DataFrame) -> str:
    """The last updates: of whole cycles if a run has any, otherwise of parts of cycles."""
    ranks: dict[str, float] = {}
    parts, kinds = {}, {}
    rows = _those(table, (table["component"] == "update") & table["effective_rank"].notna())
    for name, every in each_run(rows):
        own = every.assign(window=every["window"].fillna(""))
        window = next(kind for kind in WINDOWS if kind in own["window"].unique())
        last = last_rows(own[own["window"] == window])
        dimensions = last[["rows", "cols"]].min(axis=1).median()
        ranks[name] = rank = float(last["numerical_rank"].median())
        kinds[name] = f"{name}, {WINDOWS[window]}" if window else name
        kappa = last["condition_number_r"].median()
        condition = "" if pd.isna(kappa) else f" and κ over rank {kappa:.3g}"
        parts[name] = f"rank {rank:.0f} of {dimensions:.0f}{condition} in {kinds[name]}"
    if not parts:
        return ""
    if len(parts) > MOST_RUNS:
        low, high = extremes(ranks)
        return (
            f"The median rank of the last updates is from {ranks[low]:.0f} ({kinds[low]}) to "
            f"{ranks[high]:.0f} ({kinds[high]})."
        )
    return f"The last updates have, as medians over matrices, {'; '.join(parts.values())}."


def _adapters(table: pd.DataFrame) -> str:
    """The effective rank of adapters, if no run has weights."""
    rows = table[(table["component"] == "adapter") & table["effective_rank"].notna()]
    ends = {name: last_rows(own) for name, own in each_run(rows)}
    if not ends:
        return ""
    ranks = {name: float(last["effective_rank"].mean()) for name, last in ends.items()}
    texts = {n: f"{rank_text(last)} of {last['max_rank'].median():.0f}" for n, last in ends.items()}
    return (
        "The adapters at the end have effective rank (mean over matrices) "
        f"{in_words(ranks, texts)}."
    )


def _at_both_ends(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of the first step and of the last, of the matrices that have both."""
    ends = [rows[rows["step"] == end] for end in (rows["step"].min(), rows["step"].max())]
    first, last = (end.set_index(["run", "name"]) for end in ends)
    return first[first.index.isin(last.index)], last[last.index.isin(first.index)]


def _span(first: pd.DataFrame, last: pd.DataFrame, unit: str) -> str:
    start, end = (int(rows["step"].min()) for rows in (first, last))
    return "" if start == end else f"{unit} {start} → {end}"
