"""The most that the construction of some matrices allows their PER to be."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

LIMITED_BY = {"adapter": "adapter rank", "merge": "adapter rank"}
LIMITED_BY |= dict.fromkeys(("ov", "qk"), "head size")
LIMITED_BY |= dict.fromkeys(("ov_update", "qk_update"), "2 × head size")


class Limit(NamedTuple):
    """The most that the construction of some matrices allows."""

    rows: pd.DataFrame
    label: str


def rank_limits(table: pd.DataFrame, component: str, role: str) -> list[Limit]:
    """Limits of PER in a panel.

    That of a whole cycle is the rank of the run's adapters, since the update itself also holds the
    rounding of a merge. That of a change between two states of live adapters is its own rank: there
    the adapters are subtracted, not the weights. A change across restarts has no known limit.
    """
    of_role = table[table["role"] == role]
    own = of_role[of_role["component"] == component]
    if component != "update":
        return [Limit(own, f"{LIMITED_BY.get(component, 'rank')} / min(m, n)")]
    windows = own["window"].fillna("") if "window" in own else pd.Series("", index=own.index)
    cycling = own.loc[windows == "cycle", "run"].unique()
    adapters = of_role[of_role["component"].eq("adapter") & of_role["run"].isin(cycling)]
    live = own[~windows.isin(["cycle", "across"]) & (own["max_rank"] < sides(own))]
    return [
        Limit(adapters, "adapter rank / min(m, n), whole cycles"),
        Limit(live, "largest rank of an adapter change / min(m, n)"),
    ]


def sides(rows: pd.DataFrame) -> pd.Series[int]:
    """The shorter side of each matrix, min(m, n)."""
    return rows[["rows", "cols"]].min(axis=1)
