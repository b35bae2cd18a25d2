"""The sentence of the answer on what weights read: whether they look where its energy is."""

from __future__ import annotations

import pandas as pd

from rankscope.report.runs_in_words import each_run, in_words, last_rows, span
from rankscope.statistics.energy_over_chance import OVER_CHANCE, with_chance

WHICH = {
    "update": "the leading directions of the last updates",
    "adapter": "the row spaces of the last adapters",
    "weight": "the leading directions of the last weights",
}
"""The matrices that the sentence is about: the first that have a share."""


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
    is_same = pd.concat(ends.values())["probe"].nunique() == 1
    warning = "" if is_same else "; the runs read different tokens: do not compare them"
    return (
        f"Of the energy of the weights' inputs, {WHICH[component]} hold this many times as much as "
        f"random directions (mean over the matrices of blocks, features centred{warning}): "
        f"{in_words(values, texts)}."
    )
