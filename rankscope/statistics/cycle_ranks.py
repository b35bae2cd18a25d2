"""The ranks of adapters cycle by cycle, and of the sum of what was merged."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from rankscope.statistics.logged_series import is_logged
from rankscope.statistics.row_choice import distinct
from rankscope.statistics.step_summary import summary

SHARES = ["step", "captured_energy", "overlap"]


def has_varied_ranks(table: pd.DataFrame) -> bool:
    """Whether the adapters or merges of a run are not all of one rank."""
    rows = cycle_rows(table)
    return bool((rows.groupby("run")["max_rank"].nunique() > 1).any())


def cycle_rows(table: pd.DataFrame, role: str | None = None) -> pd.DataFrame:
    """Rows that give the rank of a cycle's adapters: merges, and adapters of the other steps."""
    if not {"adapter", "merge"} & {*distinct(table, "component")}:
        return table.iloc[:0]
    is_merge = table["component"] == "merge"
    merges = pd.MultiIndex.from_frame(table.loc[is_merge, ["run", "step"]])
    # An adapter saved at the step of a merge may already be the next one.
    is_known = pd.MultiIndex.from_frame(table[["run", "step"]]).isin(merges)
    rows = table[is_merge | ((table["component"] == "adapter") & ~is_known)]
    return rows if role is None else rows[rows["role"] == role]


def ranks_by_step(rows: pd.DataFrame, steps: Collection[int], hue: str) -> pd.DataFrame:
    """Ranks of one series at all its steps, NaN without adapters; ``effective`` if merged."""
    merges = rows[rows["component"] == "merge"]
    effective = summary(merges, "effective_rank", hue=hue).set_index("step")["centre"].fillna(0.0)
    ranks = summary(rows, "max_rank", hue=hue).set_index("step")[["centre", "low", "high"]]
    ranks["merged"] = ranks.index.isin(effective.index)
    ranks = ranks.reindex(sorted(steps))
    # A step between two restarts belongs to the cycle that the next merge ends.
    ranks["effective"] = effective.reindex(ranks.index).bfill().where(ranks["centre"].notna())
    return ranks.rename_axis("step").reset_index()


def begun_cycles(training: pd.DataFrame | None, runs: Collection[object]) -> pd.DataFrame:
    """Shares at the steps at which adapters of the runs begin, ``overlap`` even if none has one."""
    if training is None or not is_logged(training, "captured_energy"):
        return pd.DataFrame(columns=SHARES, dtype=float)
    lines = training[training["run"].isin(runs) & training["captured_energy"].notna()]
    return lines.reindex(columns=SHARES).groupby("step", as_index=False).mean()


def merged_stairs(series: pd.DataFrame, end: int) -> pd.DataFrame:
    """A summary from rank 0 at step 0 on, and up to the run's last step."""
    flat = {"step": 0, "centre": 0.0, "low": 0.0, "high": 0.0}
    values = series[list(flat)].fillna(0.0)
    last = values.iloc[[-1]].assign(step=end)
    return pd.concat([pd.DataFrame([flat]), values, last], ignore_index=True)


def most_rank(table: pd.DataFrame, role: str | None) -> pd.Series[float]:
    """The most that sums of merges can have, mean over layers by step: ranks up to min(m, n)."""
    merges = table[table["component"] == "merge"].sort_values("step")
    if role is not None:
        merges = merges[merges["role"] == role]
    matrices = merges.groupby(["run", "layer", "role", "name"], dropna=False)
    added = matrices["max_rank"].cumsum().astype(float)
    most = added.clip(upper=merges[["rows", "cols"]].min(axis=1))
    return most.groupby(merges["step"]).mean()
