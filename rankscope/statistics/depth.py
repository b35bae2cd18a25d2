"""How a metric changes with depth, step by step, and when the trend reverses."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from rankscope.errors import WrongSettingError
from rankscope.statistics.quantities import quantity
from rankscope.statistics.replicates import RUN_GROUP, grouped
from rankscope.statistics.row_choice import chosen_rows, require_metric

LEAST_LAYERS = 3  # two layers have a slope but nothing to judge it by
PLACE = ("run", "role", "window", "step")
LINE = ("layers", "slope", "low", "high")


def depth_profile(
    table: pd.DataFrame,
    column: str,
    *,
    component: str = "weight",
    role: str | None = None,
    run: str | None = None,
    group: str | None = None,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Return the slope of a metric over the layers, for each run, role and step.

    The slope is the median over all pairs of layers (Theil and Sen), which one odd layer does not
    move. A quantity that spans decades, such as a condition number, enters by its decimal
    logarithm. A condition number of which only a lower bound is known is not a value of its layer.

    Parameters
    ----------
    table
        The metrics table.
    column
        The metric.
    component, role, run
        Which rows; all roles and runs by default.
    group
        A pattern that makes replicates of runs, as in `grouped`. The slope is then the mean of the
        runs' slopes, with Student's interval for the mean over other runs of the kind.
    confidence
        Level of the interval, above 0.5 and below 1; it takes layers as independent given the line.

    Returns
    -------
    Columns ``run``, ``role``, ``window``, ``step``; ``layers``, how many have a value; ``slope``
    per layer with its interval ``low`` to ``high``, NaN for fewer than three layers; and
    ``reverses``: whether the sign is certain and the opposite of the last certain one. With
    ``group``, ``run`` is the name of the group, ``runs`` says how many of its runs have a slope,
    ``layers`` is the least of theirs, and a single run has no interval.

    Raises
    ------
    RankscopeError
        If the table has no such rows or no such column, or for another level.

    References
    ----------
    P. K. Sen, "Estimates of the regression coefficient based on Kendall's tau", JASA 63 (1968),
    1379.

    Examples
    --------
    >>> import rankscope as rs
    >>> table = rs.analyze("ckpts/relora", components=["weight"])
    >>> rs.depth_profile(table, "per", role="q")[["step", "layers"]].head(2)
       step  layers
    0     0       2
    1    10       2
    """
    if not 0.5 < confidence < 1:
        raise WrongSettingError(f"confidence is {confidence}: give a level above 0.5 and below 1")
    rows = chosen_rows(table, component=component, role=role, run=run)
    require_metric(rows, column)
    rows = rows[rows["layer"].notna()]
    rows = rows.assign(window=rows["window"].fillna("") if "window" in rows else "")
    found = [
        dict(zip(PLACE, place, strict=True)) | _slope(layers, column, confidence)
        for place, layers in rows.groupby(list(PLACE), sort=True)
    ]
    slopes = pd.DataFrame(found, columns=[*PLACE, *LINE])
    if group is not None:
        slopes = _over_runs(grouped(slopes, group), confidence)
    sign = np.sign(slopes["low"]).where(slopes["low"] * slopes["high"] > 0)
    of_series = sign.groupby([slopes[key] for key in PLACE[:-1]])
    last = of_series.transform(lambda signs: signs.ffill().shift())
    return slopes.assign(reverses=sign * last < 0)


def _over_runs(slopes: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Mean slope of the runs of each group, with Student's interval."""
    groups = slopes.assign(run=slopes[RUN_GROUP]).groupby(list(PLACE), sort=True)
    number, mean = groups["slope"].count(), groups["slope"].mean()
    half = stats.t.ppf((1 + confidence) / 2, number - 1) * groups["slope"].std() / np.sqrt(number)
    columns = {"runs": number, "layers": groups["layers"].min(), "slope": mean}
    return pd.DataFrame(columns | {"low": mean - half, "high": mean + half}).reset_index()


def _slope(rows: pd.DataFrame, column: str, confidence: float) -> dict[str, float]:
    """Theil–Sen slope over layers; heads and experts of a layer are averaged."""
    values = rows[column].astype(float)
    if column == "condition_number":
        values = values.where(rows["condition_number_status"] == "ok")
    if quantity(column).log:
        values = values.where(values > 0).map(np.log10)
    values = values.where(np.isfinite(values)).dropna()
    layers = rows.loc[values.index, "layer"].astype(int)
    means = values.groupby(layers).mean()
    if len(means) < LEAST_LAYERS:
        return {"layers": len(means), "slope": np.nan, "low": np.nan, "high": np.nan}
    line = stats.theilslopes(means.to_numpy(), means.index.to_numpy(), alpha=confidence)
    return {
        "layers": len(means),
        "slope": float(line.slope),
        "low": float(line.low_slope),
        "high": float(line.high_slope),
    }
