"""How a metric changes with depth, step by step, and when the trend reverses."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.statistics.intervals import CONFIDENCE
from rankscope.statistics.layer_cells import in_layers
from rankscope.statistics.quantities import quantity
from rankscope.statistics.replicates import RUN_GROUP, are_replicates, grouped, in_common
from rankscope.statistics.row_choice import chosen_rows, require_metric

LEAST_LAYERS = 3  # two layers have a slope but nothing to judge it by
SERIES = ("run", "role", "window")
LINE = ("layers", "slope", "low", "high")


def depth_profile(
    table: pd.DataFrame,
    column: str,
    *,
    component: str = "weight",
    role: str | None = None,
    run: str | None = None,
    group: str | None = None,
    confidence: float = CONFIDENCE,
) -> pd.DataFrame:
    """Return the slope of a metric over the layers, for each run, role and step.

    The slope is the median over all pairs of layers (Theil and Sen), which a single odd layer does
    not affect. A quantity that spans decades, such as a condition number, enters by its decimal
    logarithm. A condition number that is only a lower bound does not count.

    Parameters
    ----------
    table
        The metrics table.
    column
        The metric.
    component, role, run
        Which rows; all roles and runs by default.
    group
        A pattern that groups runs into replicates, as in `grouped`. The slope is then the mean of
        the runs' slopes, with Student's interval for the mean over other runs of the same kind.
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
        If the table has no such rows or no such column, or the level is out of range.

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
    rows = chosen_rows(table, component=component, role=role, run=run)
    found = slopes(rows, column, by=SERIES, confidence=confidence)
    if group is not None:
        found = grouped(found, group)
        found = over_runs(found.assign(run=found[RUN_GROUP]), by=SERIES, confidence=confidence)
    sign = np.sign(found["low"]).where(found["low"] * found["high"] > 0)
    last = sign.groupby([found[key] for key in SERIES]).transform(lambda s: s.ffill().shift())
    return found.assign(reverses=sign * last < 0)


def slopes(
    rows: pd.DataFrame, column: str, *, by: Sequence[str], confidence: float = CONFIDENCE
) -> pd.DataFrame:
    """Slopes over the layers with their intervals, one series for each value of ``by``.

    Where a series holds several roles, a layer's value is the mean over them.
    """
    if not 0.5 < confidence < 1:
        raise WrongSettingError(f"confidence is {confidence}: give a level above 0.5 and below 1")
    require_metric(rows, column)
    rows = rows[rows["layer"].notna()]
    rows = rows.assign(window=rows["window"].fillna("") if "window" in rows else "")
    found = [
        dict(zip(by, names, strict=True)) | {"step": step} | _slope(layers.dropna(), confidence)
        for names, series in rows.groupby([*by], sort=True)
        for step, layers in layer_means(series, column).items()
    ]
    return pd.DataFrame(found, columns=[*by, "step", *LINE])


def over_runs(
    found: pd.DataFrame, *, by: Sequence[str], confidence: float = CONFIDENCE
) -> pd.DataFrame:
    """Mean of the `slopes` of several runs of each series, with Student's interval."""
    from scipy import stats

    groups = found.groupby([*by, "step"], sort=True)
    number, mean = groups["slope"].count(), groups["slope"].mean()
    half = stats.t.ppf((1 + confidence) / 2, number - 1) * groups["slope"].std() / np.sqrt(number)
    columns = {"runs": number, "layers": groups["layers"].min(), "slope": mean}
    return pd.DataFrame(columns | {"low": mean - half, "high": mean + half}).reset_index()


def layer_means(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Mean of a metric over the matrices of each layer (index) and step (columns).

    Heads and experts are averaged first, then roles: NaN where one of the roles has no finite
    value, since the mean of the others is not comparable with that of another layer. Quantities
    that span decades enter by their decimal logarithm, and condition numbers of which only a lower
    bound is known not at all.
    """
    values = rows[column].astype(float)
    if column == "condition_number":
        values = values.where(rows["condition_number_status"] == "ok")
    if quantity(column).log:
        values = values.where(values > 0).map(np.log10)
    values = values.where(np.isfinite(values))
    of_role = values.groupby([rows["layer"].astype(int), rows["step"], rows["role"]]).mean()
    cells: pd.DataFrame = of_role.unstack("role").mean(axis=1, skipna=False).unstack("step")
    return cells


def _slope(layers: pd.Series[float], confidence: float) -> dict[str, float]:
    """Theil–Sen slope of values over the layers that are their index."""
    if len(layers) < LEAST_LAYERS:
        return {"layers": len(layers), "slope": np.nan, "low": np.nan, "high": np.nan}
    from scipy import stats

    line = stats.theilslopes(layers.to_numpy(), layers.index.to_numpy(), alpha=confidence)
    return {
        "layers": len(layers),
        "slope": float(line.slope),
        "low": float(line.low_slope),
        "high": float(line.high_slope),
    }


def in_every_layer(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of those roles that every layer of their run has.

    A mean over roles would otherwise be one of different matrices in different layers.
    """
    rows = in_layers(rows)
    layers = rows.groupby(["run", "role"])["layer"].transform("nunique")
    there = rows[layers == rows.groupby("run")["layer"].transform("nunique")]
    if there.empty:
        raise RankscopeError("no role is in every layer: choose one as `role`")
    return there


def known_slopes(rows: pd.DataFrame, column: str, hue: str) -> pd.DataFrame:
    """`slopes` of each series, of replicates those of `over_runs`; some slope is known."""
    if hue == "layer":
        raise WrongSettingError("the slope is over layers: choose another column as `hue`")
    if are_replicates(rows, hue):
        common = in_common(rows, hue)
        found = over_runs(slopes(common, column, by=[hue, "run", "window"]), by=[hue, "window"])
    else:
        found = slopes(rows, column, by=[hue, "window"])
    if found["slope"].isna().all():
        raise RankscopeError(f"{column!r} has values in fewer than {LEAST_LAYERS} layers: no slope")
    return found
