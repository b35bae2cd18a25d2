"""The effect of every merge on the loss and on the rank of all merges so far, beside its bound."""

from __future__ import annotations

import pandas as pd

RANKS = ("numerical_rank", "max_rank", "effective_rank", "rank_utilisation")
LOSSES = ("loss_before", "loss_after")
MERGE_COLUMNS = (
    *("run", "step", "restart", *LOSSES, "loss_jump"),
    *(*RANKS, "least_utilisation", "most_utilisation", "matrices"),
)
KEY = ["run", "step"]


def merge_table(metrics: pd.DataFrame, training: pd.DataFrame) -> pd.DataFrame:
    """One row per run and merge, from the metrics of ``merged_total`` and the training log."""
    ranks, losses = _ranks(metrics), _losses(training)
    rows = ranks.merge(losses, on=KEY, how="outer").sort_values(KEY, kind="stable")
    rows["loss_jump"] = rows["loss_after"] - rows["loss_before"]
    return rows[list(MERGE_COLUMNS)].reset_index(drop=True)


def _ranks(metrics: pd.DataFrame) -> pd.DataFrame:
    """Means over the matrices of each merge, with the least and greatest utilisation."""
    totals = metrics[metrics["component"] == "merged_total"]
    numbers = totals[[*KEY, *RANKS]].astype(dict.fromkeys(RANKS, "float64") | {"step": "int64"})
    groups = numbers.groupby(KEY)
    means = groups[list(RANKS)].mean()
    shares = groups["rank_utilisation"]
    return means.assign(
        least_utilisation=shares.min(), most_utilisation=shares.max(), matrices=shares.count()
    ).reset_index()


def _losses(training: pd.DataFrame) -> pd.DataFrame:
    """Logged losses before and after each restart."""
    columns = [*KEY, "restart", *LOSSES]
    if "event" not in training:
        return pd.DataFrame(columns=columns).astype(
            {"run": "str", "step": "int64"} | dict.fromkeys(columns[2:], "float64")
        )
    events = training[training["event"] == "restart"].reindex(columns=columns)
    return events.astype({"step": "int64"} | dict.fromkeys(columns[2:], "float64"))
