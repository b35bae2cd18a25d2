"""Matrices of several runs where the runs are equally far: at a step, a loss, or a distance."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rankscope.statistics.certified import BOUNDED_BY, values_and_errors
from rankscope.statistics.equal_distance import distances_of
from rankscope.statistics.equal_loss import around, at_steps, common_level

STATES = ("weight", "base", "cumulative_update", "merged_total", "ov", "ov-published", "qk")
"""Components that are a state of the model: others have no place between two steps."""
CHANGES = ("update", "ov_update", "qk_update")
NONE = -1  # no layer, no head, no step where a window begins
PLACE = ["layer", "head", "expert", "rows", "cols", "rank"]
TAKEN = (
    *("run", "step", "since", "component", "role", "name", "window", *PLACE[:-1]),
    *("numerical_rank", "relative_size", *BOUNDED_BY),
)
"""Columns of the metrics table that a comparison takes besides the metrics."""


@dataclass(frozen=True)
class Between:
    """Where a run is: a share of the way from one checkpoint to the next."""

    before: float
    after: float
    share: float = 1.0

    @property
    def step(self) -> float:
        """The step, between those of the two checkpoints."""
        return self.before + self.share * (self.after - self.before)


@dataclass(frozen=True)
class Matched:
    """Measured matrices of runs that are equally far.

    Attributes
    ----------
    parts
        One row per run, matrix and metric: ``at`` (``step``, ``loss``, ``distance`` or ``last``),
        component, since, step, role, the columns `PLACE`, metric, value, error. ``rank`` is that
        which a value is only comparable at. What is compared is in one part; they are made when
        they are asked for, once, since all of them take ten times as much as the table.
    places
        Where each run is, by ``at`` and role, then by run, for moments that are not a common step.
    levels
        The loss or distance at which the runs are compared, by ``at`` and role.
    """

    parts: Iterator[pd.DataFrame]
    places: Mapping[tuple[str, str], Mapping[str, Between]]
    levels: Mapping[tuple[str, str], float]


def matched(
    table: pd.DataFrame, runs: Collection[str], columns: Collection[str], losses: pd.DataFrame
) -> Matched:
    """Values and errors of the metrics at every common step, or else the last, and at equal levels.

    Those are the lowest loss that all runs came down to, and for each role the largest distance
    from their start that its matrices reached in all of them: roles move differently, and each has
    to have moved equally far to be compared.

    Parameters
    ----------
    table
        The metrics table.
    runs
        All of them must have a matrix for it to be compared.
    columns
        The metrics.
    losses
        From `losses_of`; may be empty.
    """
    rows = _numbered(table[table["run"].isin(runs)])
    steps = {run: {*rows.loc[rows["run"] == run, "step"]} for run in runs}
    last = {run: Between(max(own), max(own)) for run, own in steps.items() if own}
    fallen, loss = _reached(_loss_curves(rows, runs, losses))
    parts: Iterable[pd.DataFrame] = ()
    here = [_at_places(rows, columns, fallen).assign(at="loss")]
    places, levels = dict[tuple[str, str], Mapping[str, Between]](), dict[tuple[str, str], float]()
    for role, of_role in rows.groupby("role"):
        distances = distances_of(of_role, runs, PLACE[:-1])
        moved, depth = _reached({run: -curve for run, curve in distances.items()})
        if moved:
            here.append(_at_places(of_role, columns, moved).assign(at="distance"))
        name = str(role)
        places |= {("loss", name): fallen, ("distance", name): moved, ("last", name): last}
        levels |= {("loss", name): loss, ("distance", name): -depth}
    if set.intersection(*steps.values()):
        parts = (part.assign(at="step") for part in _measured(_of_one_kind(rows), columns))
    else:
        rows = rows[~rows["component"].isin(CHANGES)]
        here.append(_at_places(rows, columns, last, everything=True).assign(at="last"))
    return Matched(chain(here, parts), places, levels)


def _numbered(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows whose whole numbers are plain ones, to group by."""

    def number(column: str) -> NDArray[np.float64]:
        if column not in rows:
            return np.full(len(rows), float(NONE))
        return rows[column].to_numpy(dtype=np.float64, na_value=NONE)

    return rows.assign(**{name: number(name) for name in ("step", "since", *PLACE[:-1])})


def _of_one_kind(rows: pd.DataFrame) -> pd.DataFrame:
    """Without changes over windows of two kinds; a run without restarts compares with any."""
    if "window" not in rows:
        return rows
    kinds = rows["window"].where(rows["window"] != "")
    moments = [rows[name] for name in ("component", "since", "step", "role")]
    is_one = kinds.groupby(moments).transform("nunique") <= 1
    return rows if is_one.all() else rows[is_one]  # a copy may be large


def _measured(rows: pd.DataFrame, columns: Collection[str]) -> Iterator[pd.DataFrame]:
    """One row per run, matrix and metric, metric by metric: value and error."""
    key = ["run", "component", "since", "step", "role", *PLACE[:-1]]
    if rows.duplicated(key).any():  # as in models with several towers
        key.append("name")
    ranks = rows["numerical_rank"].to_numpy(dtype=np.float64, na_value=NONE)
    is_whole = rows["component"].isin(["weight", "base"])
    for column in columns:
        values, errors = values_and_errors(rows, column)
        by_rank = column == "condition_number_r"  # comparable at one rank only
        if by_rank:  # of whole weights it is the condition number once more
            values = np.where(is_whole, np.nan, values)
        there = ~np.isnan(values)
        yield rows.loc[there, key].assign(
            metric=column,
            value=values[there],
            error=errors[there],
            rank=ranks[there] if by_rank else float(NONE),
        )


def _loss_curves(
    rows: pd.DataFrame, runs: Collection[str], losses: pd.DataFrame
) -> dict[str, pd.Series[float]]:
    """The loss of every run at its checkpoints; none if none is on record."""
    if losses.empty:
        return {}
    states = rows[rows["component"].isin(STATES)]
    return {run: at_steps(losses, run, {*states.loc[states["run"] == run, "step"]}) for run in runs}


def _reached(curves: Mapping[str, pd.Series[float]]) -> tuple[dict[str, Between], float]:
    """Where each run first came down to the lowest level that all reached, and that level."""
    level = common_level(list(curves.values()))
    if np.isnan(level):
        return {}, level
    return {run: Between(*around(curve, level)) for run, curve in curves.items()}, level


def _at_places(
    rows: pd.DataFrame,
    columns: Collection[str],
    places: Mapping[str, Between],
    *,
    everything: bool = False,
) -> pd.DataFrame:
    """Values where each run is, between two of its checkpoints if need be.

    The error is then of both, and all that lies between the value and the farther of the two.
    """
    rows = rows if everything else rows[rows["component"].isin(STATES)]
    parts = []
    for run, place in places.items():
        own = rows[rows["run"] == run]
        early, late = (
            pd.concat(_measured(own[own["step"] == step], columns))
            for step in (place.before, place.after)
        )
        key = [name for name in late if name not in ("step", "since", "value", "error")]
        both = early.merge(late, on=key, suffixes=("_early", ""))
        way, left = both["value"] - both["value_early"], 1 - place.share
        error = both["error"] * place.share + both["error_early"] * left
        if left:
            error += way.abs() * max(place.share, left)
        parts.append(both[key].assign(value=both["value"] - way * left, error=error))
    columns_of_none = ["run", "component", "role", *PLACE, "metric", "value", "error"]
    found = pd.concat(parts) if parts else pd.DataFrame(columns=columns_of_none)
    return found.assign(step=NONE, since=NONE)
