"""How far runs are by their loss, and where each came down to a level that all of them reached."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd


def losses_of(evaluation: pd.DataFrame, training: pd.DataFrame) -> pd.DataFrame:
    """Losses by which to tell how far runs are, with the best source that all of them have.

    Returns
    -------
    Columns ``run``, ``step``, ``loss``, ``source``: an evaluated task by name, ``validation``, or
    ``training``, the logged losses of single batches; empty without any.
    """
    sources = []
    if not evaluation.empty:
        whole = evaluation[(evaluation["group"] == "all") & (evaluation["metric"] == "loss")]
        whole = whole.rename(columns={"value": "loss"}).assign(source=whole["task"])
        sources += [rows for _, rows in whole.groupby("task", sort=True)]
    for column, source in (("validation_loss", "validation"), ("loss", "training")):
        if column in training:
            logged = training[["run", "step"]].assign(loss=training[column], source=source)
            sources.append(logged)
    columns = ["run", "step", "loss", "source"]
    found = [rows[columns].dropna() for rows in sources]
    most = max((rows["run"].nunique() for rows in found), default=0)
    best = [rows for rows in found if rows["run"].nunique() == most and most]
    return best[0].reset_index(drop=True) if best else pd.DataFrame(columns=columns)


def at_steps(losses: pd.DataFrame, run: str, steps: Collection[int]) -> pd.Series[float]:
    """Loss of a run at its checkpoints, by step; those outside its log are left out.

    Where a step was not logged, its loss is interpolated; the loss of single batches, which
    scatters, is averaged over the logged steps nearer to this checkpoint than to another.
    """
    own = losses[losses["run"] == run].groupby("step")["loss"].mean().sort_index()
    at = np.array(sorted(steps), dtype=float)
    if own.empty or not at.size:
        return pd.Series(dtype=float)
    if (losses["source"] == "training").all() and len(at) > 1:
        middles = (at[1:] + at[:-1]) / 2
        nearest = np.searchsorted(middles, own.index.to_numpy(dtype=float))
        means = own.groupby(at[nearest]).mean()
        return means.reindex(at).dropna()
    inside = at[(at >= own.index[0]) & (at <= own.index[-1])]
    return pd.Series(np.interp(inside, own.index, own.to_numpy()), index=inside)


def common_level(curves: Collection[pd.Series[float]]) -> float:
    """The lowest level that every curve reached and began above; NaN if there is none."""
    if not curves or any(curve.empty for curve in curves):
        return np.nan
    lowest = max(float(curve.min()) for curve in curves)
    return lowest if all(curve.iloc[0] >= lowest for curve in curves) else np.nan


def around(curve: pd.Series[float], level: float) -> tuple[float, float, float]:
    """The two steps between which a curve first came down to a level, and the share of the way."""
    steps, values = curve.index.to_numpy(dtype=float), curve.to_numpy(dtype=float)
    later = int(np.argmax(values <= level))
    if later == 0 or values[later] == level:
        return steps[later], steps[later], 1.0
    fall = values[later - 1] - values[later]
    return steps[later - 1], steps[later], float((values[later - 1] - level) / fall)
