"""How far runs are by what they changed: the distance of their weights from where each began."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rankscope.statistics.certified import values_and_errors

MOST_ERROR = 0.1
"""Of a distance, relative to it: one that rounding may have made is not a distance."""


def distances_of(
    rows: pd.DataFrame, runs: Collection[str], place: Collection[str]
) -> dict[str, pd.Series[float]]:
    """Distance of each run from its start at its checkpoints: how much its weights have changed.

    It is the root mean square of ‖W − W₀‖/‖W₀‖, Frobenius norms, over the matrices that have such a
    ratio in all runs. Every matrix counts alike, as in the means over layers that are compared.

    Parameters
    ----------
    rows
        Rows of the metrics table, usually of one role.
    runs
        The runs.
    place
        Columns that identify a matrix.

    Returns
    -------
    By run, the distance by step: 0 at the start, then of each step at which that of every matrix is
    known and the root mean square of the bounds on their errors is at most a tenth of it. Empty if
    a run has no ``cumulative_update`` or did not move, or the changes do not all begin at one step.
    """
    changes = rows[rows["component"] == "cumulative_update"]
    starts = changes["since"].dropna().unique()
    if {*changes["run"]} != {*runs} or len(starts) != 1:
        return {}
    key = ["run", "step", *place]
    if changes.duplicated(key).any():  # as in models with several towers
        key.append("name")
    sized = _with_sizes(changes).set_index(key)
    sizes, errors = (sized[name].unstack(key[2:]) for name in ("size", "error"))
    in_all = np.asarray(sizes.notna().groupby(level="run").any()).all(axis=0)
    if not in_all.any():
        return {}
    distance, error = (_root_mean_square(one.to_numpy()[:, in_all]) for one in (sizes, errors))
    is_known = error <= MOST_ERROR * distance  # not so where that of a matrix is unknown, NaN
    known = pd.Series(distance[is_known], index=sizes.index[is_known])
    curves = {run: _from_start(known, run, float(starts[0])) for run in runs}
    return curves if all(curve.max() > 0 for curve in curves.values()) else {}


def _with_sizes(changes: pd.DataFrame) -> pd.DataFrame:
    """Relative sizes with bounds on their errors; those of no change at all are 0."""
    logs, errors = values_and_errors(changes, "relative_size")
    is_zero = (changes["relative_size"] == 0).to_numpy(np.bool_, na_value=False)
    size = np.where(is_zero, 0.0, 10.0**logs)
    error = np.where(is_zero, 0.0, 10.0**logs * (10.0**errors - 1))
    return changes.assign(size=size, error=error)


def _root_mean_square(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The root mean square of every row."""
    roots: NDArray[np.float64] = np.sqrt((values**2).mean(axis=1))
    return roots


def _from_start(known: pd.Series[float], run: str, start: float) -> pd.Series[float]:
    there = known.index.get_level_values("run") == run
    own = known[there].droplevel("run").sort_index()
    return pd.concat([pd.Series({start: 0.0}), own])
