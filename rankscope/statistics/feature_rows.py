"""Rows of the tables of features, chosen by text and place, alone, in pairs and beside weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import pandas as pd

from rankscope.errors import WrongSettingError
from rankscope.statistics.quantities import FEATURE_QUANTITIES
from rankscope.statistics.replicates import AGAINST, AGAINST_GROUP, RUN_GROUP, all_runs
from rankscope.statistics.restart_schedules import RESTARTS, restarts_of
from rankscope.statistics.row_choice import chosen_rows, require_metric

STREAM = ("embedding", "block", "final")
"""Places along the blocks, which are one series of layers; others are in series of their own."""
PAIR, TIMES = "pair", " × "
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


def in_pairs(rows: pd.DataFrame, hue: str) -> pd.DataFrame:
    """Rows of two runs each, in the order of their names, with ``pair`` to identify the lines.

    The ``run`` is that of both. A pair is of the values of ``hue`` of both runs: the runs
    themselves, or the groups that `rankscope.grouped` gave them. In ``attrs``, a pair restarts
    where either run does, and has its break at the later of theirs.
    """
    sides = [rows["run"], rows[AGAINST]]
    names = sides if hue != RUN_GROUP else [rows[RUN_GROUP], rows[AGAINST_GROUP]]
    pairs = rows.assign(run=_joined(*sides), **{PAIR: _joined(*names)})
    both = dict(zip(pairs["run"], zip(*sides, strict=True), strict=True))
    restarts, breaks = restarts_of(rows), rows.attrs.get("breaks", {})
    at = {pair: [step for run in of for step in restarts.get(run, ())] for pair, of in both.items()}
    broken = {pair: [breaks[run] for run in of if run in breaks] for pair, of in both.items()}
    pairs.attrs = {name: value for name, value in rows.attrs.items() if name == "unit"} | {
        RESTARTS: {pair: sorted({*steps}) for pair, steps in at.items()},
        "breaks": {pair: max(steps) for pair, steps in broken.items() if steps},
    }
    return pairs


def both_sides(rows: pd.DataFrame) -> pd.DataFrame:
    """Similarities, with each also under the run that it is compared with, if that is another."""
    other = rows[rows["run"] != rows[AGAINST]]
    sides = {"run": AGAINST} | ({RUN_GROUP: AGAINST_GROUP} if AGAINST_GROUP in rows else {})
    return pd.concat([rows, other.assign(**{name: other[of] for name, of in sides.items()})])


def _joined(first: pd.Series[str], second: pd.Series[str]) -> list[str]:
    return [TIMES.join(sorted(map(str, both))) for both in zip(first, second, strict=True)]


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


def groups_by_run(table: pd.DataFrame, hue: str) -> dict[str, str]:
    """The value of ``hue`` of every run, on either side of a comparison."""
    if hue == "run":
        return {run: run for run in all_runs(table)}
    sides = [("run", hue), *([(AGAINST, AGAINST_GROUP)] if AGAINST_GROUP in table else [])]
    return {
        str(run): str(name)
        for side, of in sides
        for run, name in table[[side, of]].dropna().drop_duplicates().itertuples(index=False)
    }
