"""Sentences of the answer on features: their rank, how alike runs are, and what weights read."""

from __future__ import annotations

import pandas as pd

from rankscope.errors import WrongSettingError
from rankscope.metrics import noise_matters
from rankscope.report.runs_in_words import each_run, in_words, last_rows, span
from rankscope.statistics.compared_features import in_pairs
from rankscope.statistics.energy_over_chance import OVER_CHANCE, with_chance
from rankscope.statistics.feature_rows import rows_at
from rankscope.statistics.replicates import AGAINST_GROUP, RUN_GROUP

ABOUT = "in brackets, 95 % intervals over documents, which say nothing about other trainings"
OTHER_TOKENS = "; the runs read different tokens: do not compare them"
WHICH = {
    "update": "the leading directions of the last updates",
    "adapter": "the row spaces of the last adapters",
    "weight": "the leading directions of the last weights",
}
"""The matrices that the sentence is about: the first that have a share."""


def feature_sentences(
    representations: pd.DataFrame, similarities: pd.DataFrame, unit: str
) -> list[str]:
    """What the tables say of features; empty strings where they say nothing."""
    return [_ranks(representations, unit), _alike(similarities, unit)]


def _ranks(table: pd.DataFrame, unit: str) -> str:
    """RankMe after the last block at the end, beside Gaussian features."""
    every_row = _after_last_block(table)
    rows = every_row[every_row["rankme"].notna()]
    lost = sorted({*every_row["run"]} - {*rows["run"]})
    ends = {name: last_rows(own) for name, own in each_run(rows)}
    if not ends:
        return ""
    every = pd.concat(ends.values())
    ranks = {name: float(last["rankme"].mean()) for name, last in ends.items()}
    texts = {name: _rank_text(last) for name, last in ends.items()}
    steps = {int(step) for step in every["step"]}
    at = f"{unit} {steps.pop()}" if len(steps) == 1 else "the end"
    sizes = span(every["dimensions"].astype(float).tolist(), 0)
    chance = span(every["rankme_gaussian"].tolist(), 1)
    tokens = span(every["tokens"].astype(float).tolist(), 0)
    about = f"; {ABOUT}" if any("[" in text for text in texts.values()) else ""
    warning = "" if every["probe"].nunique() == 1 else OTHER_TOKENS
    none = f"; no number in {', '.join(lost)}" if lost else ""
    return (
        f"After the last block, features of {tokens} tokens have RankMe {in_words(ranks, texts)} "
        f"at {at}, of {sizes} dimensions ({chance} for independent Gaussian features{about}"
        f"{warning}{none})."
    )


def _rank_text(last: pd.DataFrame) -> str:
    """RankMe of one run with its interval, or the range over the runs of a group."""
    values, resolved = last["rankme"].tolist(), last["rankme_resolved"].fillna(0.0).tolist()
    if any(map(noise_matters, values, resolved)):
        return span([*values, *resolved], 1)
    low, high = float(last["rankme_low"].iloc[0]), float(last["rankme_high"].iloc[0])
    if len(values) > 1 or pd.isna(low):
        return span(values, 1)
    return f"{values[0]:.1f} [{low:.1f}, {high:.1f}]"


def _alike(table: pd.DataFrame, unit: str) -> str:
    """How alike runs are after the last block at the last step that all pairs have."""
    try:
        rows = rows_at(table, comparison="runs")
    except WrongSettingError:
        return ""
    hue = RUN_GROUP if {RUN_GROUP, AGAINST_GROUP} <= {*rows} else "run"
    pairs = in_pairs(_after_last_block(rows), hue).dropna(subset=["cka"])
    counts = pairs.groupby("step")["run"].nunique()
    common = counts.index[counts == pairs["run"].nunique()]
    if pairs.empty or common.empty:
        return ""
    last = pairs[pairs["step"] == common.max()]
    found = {str(name): own for name, own in last.groupby("pair")}
    values = {name: float(own["cka"].mean()) for name, own in found.items()}
    texts = {name: _alike_text(own) for name, own in found.items()}
    return (
        f"At {unit} {int(common.max())}, the unbiased CKA of the features after the last block is "
        f"{in_words(values, texts)}; 1 means the same up to rotation and scale, and unrelated "
        "features have about 0."
    )


def _alike_text(own: pd.DataFrame) -> str:
    low, high = float(own["cka_low"].iloc[0]), float(own["cka_high"].iloc[0])
    if len(own) > 1 or pd.isna(low):
        return span(own["cka"].tolist(), 2)
    return f"{own['cka'].iloc[0]:.2f} [{low:.2f}, {high:.2f}]"


def _after_last_block(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the output of each run's last block, of the first text of the table."""
    try:
        rows = rows_at(table)
    except WrongSettingError:
        return table.iloc[:0]
    rows = rows[rows["at"] == "block"]
    return rows[rows["layer"] == rows.groupby("run")["layer"].transform("max")]


def energy_sentence(energies: pd.DataFrame) -> str:
    """Share of the inputs' energy over that of random directions at the end; empty for none.

    The output layer is left out, which is trained in full where adapters train the others.
    """
    rows = with_chance(energies).dropna(subset=[OVER_CHANCE, "layer"])
    component = next((name for name in WHICH if (rows["component"] == name).any()), "")
    rows = rows[rows["component"] == component]
    if rows.empty:
        return ""
    ends = {name: last_rows(own) for name, own in each_run(rows)}
    means = {name: last.groupby("run")[OVER_CHANCE].mean() for name, last in ends.items()}
    values = {name: float(of_runs.mean()) for name, of_runs in means.items()}
    texts = {name: span(of_runs.tolist(), 2) for name, of_runs in means.items()}
    warning = "" if pd.concat(ends.values())["probe"].nunique() == 1 else OTHER_TOKENS
    return (
        f"Of the energy of the weights' inputs, {WHICH[component]} hold this many times as much as "
        f"random directions (mean over the matrices of blocks, features centred{warning}): "
        f"{in_words(values, texts)}."
    )
