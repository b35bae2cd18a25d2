"""How much of what weights read lies in their leading directions, against random directions."""

from __future__ import annotations

import pandas as pd

from rankscope.statistics.row_choice import require_columns

OVER_CHANCE = "energy_over_chance"


def with_chance(
    energies: pd.DataFrame, *, text: str | None = None, features: str | None = None
) -> pd.DataFrame:
    """Rows of the most of each matrix that was asked for, with their share over that of chance.

    Parameters
    ----------
    energies
        `Results.input_energies`.
    text, features
        Which text, and ``all`` or ``last`` tokens; by default the first by name.

    Returns
    -------
    The rows of one text and of the largest ``weight_share`` of each component, with
    ``energy_over_chance``, the share of the centred features' energy over k/d: 1 for random
    directions, NaN where there is no number, as of a matrix that is zero. ``window`` is what a
    change is over, as in the metrics table.
    """
    require_columns(energies, "component", "text", "features", "weight_share", "span")
    rows = energies
    for column, wanted in (("text", text), ("features", features)):
        there = sorted({*rows[column].dropna()})
        rows = rows[rows[column] == (wanted or (there[0] if there else ""))]
    most = rows.groupby("component")["weight_share"].transform("max")
    rows = rows[rows["weight_share"] == most]
    share = rows["energy_share_centred"] / rows["energy_share_chance_centred"]
    return rows.assign(**{OVER_CHANCE: share}, window=rows["span"])


def has_shares(energies: pd.DataFrame, component: str) -> bool:
    """Whether a matrix of this component has a share."""
    own = energies.loc[energies["component"] == component, "energy_share_centred"]
    return bool(own.notna().any())
