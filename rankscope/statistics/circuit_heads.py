"""Attention circuits at one step, and what chance gives their metrics."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd

from rankscope import metrics, shape_metrics
from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.statistics.row_choice import step_label

DIGITS = 3
# What chance gives each metric of the r singular values of a product, given min(m, n).
_OF_PRODUCT: dict[str, Callable[[metrics.Values, int], float]] = {
    "effective_rank": lambda s, q: metrics.effective_rank(s),
    "per": lambda s, q: metrics.effective_rank(s) / q,
    "rank_utilisation": lambda s, q: metrics.effective_rank(s) / s.size,
    "stable_rank": lambda s, q: metrics.stable_rank(s),
    "participation_ratio": lambda s, q: metrics.participation_ratio(s),
    "svd_entropy": lambda s, q: shape_metrics.svd_entropy(s),
}


def at_step(rows: pd.DataFrame, step: int | None, table: pd.DataFrame) -> pd.DataFrame:
    """Rows at a step, or at the last one."""
    at = rows["step"].max() if step is None else step
    there = rows[rows["step"] == at]
    if there.empty:
        steps = ", ".join(map(str, sorted({*rows["step"]})))
        raise WrongSettingError(f"no circuits at {step_label(table)} {step}: choose one of {steps}")
    return there


def of_heads(rows: pd.DataFrame, component: str) -> pd.DataFrame:
    """Rows that belong to a layer and a head."""
    inside = rows[rows["layer"].notna() & rows["head"].notna()]
    if inside.empty:
        raise RankscopeError(f"{component!r} is not measured by layer and head: no map to draw")
    return inside


def values_by_chance(rows: pd.DataFrame, column: str) -> list[float]:
    """The values for products of two Gaussian factors of the sizes that occur; none for changes."""
    metric = _OF_PRODUCT.get(column)
    products = rows[~rows["component"].str.endswith("_update")].dropna(subset=["max_rank"])
    if metric is None or products.empty:
        return []
    sizes = products[["rows", "cols", "max_rank"]].astype(int).drop_duplicates()
    means = {
        round(
            float(
                np.mean([metric(s, min(m, n)) for s in shape_metrics.gaussian_product((m, n), r)])
            ),
            DIGITS,
        )
        for m, n, r in sizes.itertuples(index=False)
        if r > 0
    }
    return sorted(means)
