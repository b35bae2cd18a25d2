"""Rows of the tables of features, chosen by text and place, alone, in pairs and beside weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import pandas as pd

from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.metrics import noise_matters
from rankscope.statistics.markup import literal
from rankscope.statistics.quantities import FEATURE_QUANTITIES
from rankscope.statistics.row_choice import chosen_rows, require_metric, span_text

MOST_PLACES = 8
"""Panels of a figure; of more places, evenly spread ones are drawn."""
NAMES = {"embedding": "embedding", "final": "after the last norm"}

RESOLVED = {"rankme": "rankme_resolved", "per": "rankme_resolved"}
RESOLVED |= {f"{name}_centred": "rankme_centred_resolved" for name in ("rankme", "per")}

STREAM = ("embedding", "block", "final")
"""Places along the blocks, which are one series of layers; others are in series of their own."""
Item = TypeVar("Item")


def rows_at(
    table: pd.DataFrame,
    *,
    at: str = "block",
    text: str | None = None,
    features: str | None = None,
    comparison: str | None = None,
) -> pd.DataFrame:
    """Rows of one text, and of one kind of place.

    Parameters
    ----------
    table
        `Results.representations` or `Results.similarities`.
    at
        ``block``, which includes the embedding and the features after the last norm,
        ``attention``, ``mlp`` or another name of the column ``at``.
    text, features
        Which text, and ``all`` or ``last`` tokens; by default the first by name.
    comparison
        Which similarities.

    Returns
    -------
    The rows, without ``window``: their tokens of context, if they differ, give other tokens.

    Raises
    ------
    WrongSettingError
        If there are no such rows; the message says what exists.
    """
    kinds = table["at"].where(~table["at"].isin(STREAM), "block")
    wanted = {"comparison": comparison, "at": at, "text": text, "features": features}
    is_chosen = pd.Series(True, index=table.index)
    for column, value in wanted.items():
        if column not in table:
            continue
        values = kinds if column == "at" else table[column]
        there = sorted({*values[is_chosen].dropna()})
        if value is None and there and column != "comparison":
            value = there[0]
        if value is None:
            continue
        if value not in there:
            listing = ", ".join(map(str, there)) or "nothing"
            raise WrongSettingError(f"no features with {column} {value!r}: there is {listing}")
        is_chosen &= values == value
    # Elsewhere a window is what a change is over, which must not be one line with another.
    return table[is_chosen].drop(columns="window", errors="ignore")


def kinds_of_places(table: pd.DataFrame) -> list[str]:
    """Kinds of places in a table, ``block`` first."""
    kinds = {*table["at"].where(~table["at"].isin(STREAM), "block").dropna()}
    return sorted(kinds, key=lambda kind: (kind != "block", kind))


def places_of(rows: pd.DataFrame) -> list[tuple[int, str]]:
    """Layer and name of every place, from the first to the last."""
    places = rows[["layer", "at"]].drop_duplicates()
    return sorted((int(layer), str(at)) for layer, at in places.itertuples(index=False))


def few(items: Sequence[Item], most: int) -> list[Item]:
    """The items, or ``most`` of them evenly spread, with the first and the last."""
    if len(items) <= most:
        return list(items)
    return [items[round(place)] for place in np.linspace(0, len(items) - 1, most)]


def beside_weights(
    metrics: pd.DataFrame,
    representations: pd.DataFrame,
    column: str,
    of_weights: str,
    *,
    component: str = "weight",
    step: int | None = None,
) -> pd.DataFrame:
    """Numbers of the features after each block beside those of the weights in it, at a step.

    Parameters
    ----------
    metrics
        The metrics table; of several matrices of a role in a layer the mean.
    representations
        Rows of `Results.representations` from `rows_at`.
    column, of_weights
        A number of features, and a metric of weights.
    component
        Which matrices.
    step
        The step; by default the last one at which all runs that have both have them. Where these
        share none, or the first alone, each run has its own last one.

    Returns
    -------
    Columns ``run``, ``step``, ``layer``, ``role``, ``weights``, ``features``, ``low``, ``high``.

    Raises
    ------
    WrongSettingError
        If no run has both, or not at this step.
    """
    rows = chosen_rows(metrics, component=component)
    require_metric(rows, of_weights)
    require_number(representations, column)
    keys = ["run", "step", "layer"]
    weights = rows[rows["layer"].notna()].groupby([*keys, "role"])[of_weights].mean()
    ends = {"low": f"{column}_low", "high": f"{column}_high"}
    features = representations[~representations["at"].isin(("embedding", "final"))]
    features = features[keys].assign(
        features=features[column], **{end: features[name] for end, name in ends.items()}
    )
    both = weights.rename("weights").reset_index().merge(features, on=keys)
    both = both.dropna(subset=["weights", "features"]).reset_index(drop=True)
    at = both.groupby("step")["run"].nunique()
    common = at.index[at == both["run"].nunique()]
    if (step is not None and step not in at.index) or both.empty:
        there = ", ".join(map(str, at.index)) or "none"
        raise WrongSettingError(
            f"no {'step' if step is None else f'step {step}'} of weights and features: "
            f"steps with both are {there}"
        )
    own_last = both.groupby("run")["step"].transform("max")
    if step is None and len(common) and common.max() > at.index.min():
        step = int(common.max())
    return both[both["step"] == (own_last if step is None else step)]


def require_number(rows: pd.DataFrame, column: str) -> None:
    """Check that a column is a number of features, or one of one's own.

    Raises
    ------
    WrongSettingError
        If the table has no such column.
    """
    if column not in rows or not pd.api.types.is_numeric_dtype(rows[column]):
        known = ", ".join(FEATURE_QUANTITIES)
        raise WrongSettingError(f"unknown number of features {column!r}: choose one of {known}")


def at_layer(rows: pd.DataFrame, layer: int | None, *, at: str) -> pd.DataFrame:
    """Rows of one layer; by default of the last one that is not after the last norm."""
    if layer is None:
        inside = rows.loc[rows["at"] == at, "layer"]
        layer = int(inside.max()) if len(inside) else int(rows["layer"].max())
    chosen = rows[rows["layer"] == layer]
    if chosen.empty:
        there = ", ".join(str(layer) for layer, _ in places_of(rows)) or "none"
        raise RankscopeError(f"no features of layer {layer}: the table has {there}")
    return chosen


def is_noisy(rows: pd.DataFrame, column: str) -> pd.Series[bool] | None:
    """Whether rounding noise may be more than 1 % of an effective rank."""
    resolved = RESOLVED.get(column, "")
    if resolved not in rows:
        return None
    rank = rows[resolved.removesuffix("_resolved")].to_numpy(float)
    return pd.Series(noise_matters(rank, rows[resolved].to_numpy(float)), index=rows.index)


def gaussian_values(rows: pd.DataFrame, column: str) -> list[float]:
    """The values for Gaussian features of the sizes that occur."""
    baseline = f"{column}_gaussian"
    if column == "mean_cosine":
        return [0.0]
    return sorted({*rows[baseline].dropna().round(6)}) if baseline in rows else []


def place_titles(places: Sequence[tuple[int, str]]) -> dict[int, str]:
    """What panels call places, by layer: all of them, or eight evenly spread ones."""
    return {
        layer: NAMES.get(at) or f"{literal(at)} {layer}" for layer, at in few(places, MOST_PLACES)
    }


def probe_text(rows: pd.DataFrame) -> str:
    """Which text, and how many tokens of it."""
    counts = {*rows["tokens"].dropna()}
    tokens = span_text(counts) if counts else "no"
    last = "last tokens of windows" if (rows["features"] == "last").all() else "tokens"
    names = ", ".join(literal(name) for name in rows["text"].dropna().unique())
    differ = len(counts) > 1 or ("probe" in rows and rows["probe"].nunique() > 1)
    remark = "; the runs read different tokens: do not compare them" if differ else ""
    return f"text {names}: {tokens} {last}{remark}"


def has_features_of_weights(metrics: pd.DataFrame, representations: pd.DataFrame) -> bool:
    """Whether some run has weights and features of blocks at a step."""
    try:
        rows = rows_at(representations)
        return len(beside_weights(metrics, rows, "per", "per")) > 0
    except WrongSettingError:
        return False


def layer_points(series: pd.DataFrame) -> pd.DataFrame:
    """One point per layer; the ends of the interval only of a single run."""
    means = series.groupby("layer")[["weights", "features", "low", "high"]].mean()
    return means if series["run"].nunique() == 1 else means.assign(low=float("nan"))
