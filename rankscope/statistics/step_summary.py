"""Statistics over the matrices of a step, as shown by a line, its band and its markers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from rankscope import metrics
from rankscope.statistics.quantities import Quantity, quantity

Values = NDArray[np.float64]

NOISY_SHARE = 1e-3  # of Σσ; spread over some hundred values, 1 % of an effective rank

PLURALS = {"run": "runs", "layer": "layers", "role": "roles", "head": "heads", "expert": "experts"}
PLURALS |= {"side": "sides"}


def summary(
    rows: pd.DataFrame, column: str, *, hue: str = "run", cuts: Cuts | None = None
) -> pd.DataFrame:
    """Summarise a metric over the matrices of every step.

    Parameters
    ----------
    rows
        Rows of the metrics table, one per matrix and step; all of them enter.
    column
        The metric.
    hue
        The column that identifies the series.
    cuts
        Where lines are cut, from `cuts_of` the whole table; by default at no break or restart.

    Returns
    -------
    One row per series, kind of window and step, in order, with columns ``hue``, ``window``,
    ``step``, and

    - ``centre``, ``low``, ``high``: mean, minimum and maximum; for a quantity that spans decades
      the median and the 10 % and 90 % quantiles. NaN if no matrix has a value.
    - ``undefined``: how many matrices have no value, for example because they are zero or not
    finite.
    - ``noisy``: whether rounding noise may move the rank of one of them by more than 1 %.
    - ``bound``: whether ``centre`` is only a lower bound, as some condition numbers are.
    - ``stretch``: which stretch of its line the point is in; lines are cut at breaks, at windows of
    another kind, and, for parts of cycles, at restarts.
    """
    drawn = quantity(column)
    rows = rows.assign(
        noisy=noise_matters(rows) if drawn.tail else False,
        window=rows["window"].fillna("") if "window" in rows else "",
    )
    points = [
        {hue: name, "window": window, "step": step, **_point(group, column, drawn)}
        for (name, window, step), group in rows.groupby([hue, "window", "step"], sort=True)
    ]
    columns = [hue, "window", "step", "centre", "low", "high", "undefined", "noisy", "bound"]
    table = pd.DataFrame(points, columns=columns)
    return table.assign(stretch=_stretches(rows, table, hue, cuts or Cuts()))


@dataclass(frozen=True)
class Cuts:
    """Steps at which the lines of a run are cut.

    Attributes
    ----------
    breaks
        By run, the step of its last break, at which another model begins.
    restarts
        By run, the steps of its merges: a part of a cycle after one has another adapter.
    """

    breaks: Mapping[str, int] = field(default_factory=dict)
    restarts: Mapping[str, Collection[int]] = field(default_factory=dict)


def cuts_of(table: pd.DataFrame) -> Cuts:
    """Cuts of all runs: breaks are in the table's ``attrs``, restarts are its recorded merges."""
    restarts: dict[str, Collection[int]] = {}
    if {"component", "run", "step"} <= {*table.columns}:
        merges = table[table["component"] == "merge"]
        restarts = {str(run): set(steps) for run, steps in merges.groupby("run")["step"]}
    return Cuts(table.attrs.get("breaks", {}), restarts)


def _stretches(rows: pd.DataFrame, points: pd.DataFrame, hue: str, cuts: Cuts) -> pd.Series[int]:
    stretches = pd.Series(0, index=points.index)
    for (name, window), line in points.groupby([hue, "window"], sort=False):
        series = rows[rows[hue] == name]
        runs = set(series.loc[series["window"] == window, "run"]) if "run" in series else set()
        others = set(series.loc[series["run"].isin(runs), "step"]) if runs else set()
        at: set[float] = others - {*line["step"]}
        at |= {cuts.breaks[run] for run in runs if run in cuts.breaks}
        if window == "within":
            # A window from the restart on has the next adapter; one up to it has the previous one.
            at |= {step + 0.5 for run in runs for step in cuts.restarts.get(run, ())}
        stretches[line.index] = np.searchsorted(sorted(at), line["step"], side="right")
    return stretches


def _point(group: pd.DataFrame, column: str, drawn: Quantity) -> dict[str, float | bool]:
    values = group[column].to_numpy(dtype=np.float64, na_value=np.nan)
    known = ~np.isnan(values)
    point: dict[str, float | bool] = {
        "undefined": int((~known).sum()),
        "noisy": bool(group["noisy"].any()),
        "bound": False,
    }
    values = values[known]
    if not values.size:
        return point | {"centre": np.nan, "low": np.nan, "high": np.nan}
    if not drawn.log:
        return point | {"centre": values.mean(), "low": values.min(), "high": values.max()}
    low, centre, high = (log_quantile(values, share) for share in (0.1, 0.5, 0.9))
    if column == "condition_number":
        censored = (group["condition_number_status"] == "lower-bound").to_numpy()[known]
        # Censored values may be anything from their bound up to infinity: where raising them would
        # move the median, it is known only as a lower bound.
        point["bound"] = log_quantile(np.where(censored, np.inf, values), 0.5) > centre
    return point | {"centre": centre, "low": low, "high": high}


def known_centres(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Points of a `summary` that are known, for arithmetic with them.

    Left out are steps at which no matrix has a value, and centres that are infinite or only a
    lower bound. Quantities that span decades enter by their decimal logarithm.

    Returns
    -------
    Columns ``run``, ``step``, ``centre``; the same to the last bit in any order of the rows.
    """
    drawn = quantity(column)
    # A mean in another order rounds differently, which would move a constant metric.
    points = summary(rows.sort_values(column), column)
    is_known = np.isfinite(points["centre"]) & ~points["bound"].astype(bool)
    known: pd.DataFrame = points.loc[is_known, ["run", "step", "centre"]]
    return known.assign(centre=np.log10(known["centre"])) if drawn.log else known


def log_quantile(values: Values, share: float) -> float:
    """Quantile of positive values, interpolated on the log scale; they may be infinite.

    Not ``np.quantile`` of the logarithms: next to an infinite value it is NaN.
    """
    ordered = np.sort(values)
    position = share * (ordered.size - 1)
    below, above = ordered[int(np.floor(position))], ordered[int(np.ceil(position))]
    if below == above:
        return float(below)
    between = position - np.floor(position)
    return float(below ** (1 - between) * above**between)


def noise_matters(rows: pd.DataFrame) -> pd.Series[bool]:
    """Whether rounding noise may be more than 1 % of a matrix's effective rank.

    PER counts noise as dimensions, ``per_resolved`` leaves out all that may be noise: the truth is
    between the two, and unknown where they differ. The same holds where no value is above the
    floor. For older results, which have no ``per_resolved``, ``noise_share`` decides.
    """
    if "per_resolved" not in rows or rows["per_resolved"].isna().all():
        return rows["noise_share"].astype(float).ge(NOISY_SHARE)
    per, resolved = (rows[name].to_numpy(np.float64) for name in ("per", "per_resolved"))
    return pd.Series(metrics.noise_matters(per, resolved), index=rows.index)


def summarised_over(rows: pd.DataFrame, *, hue: str = "run") -> str:
    """What varies among the matrices of one series at one step, in words.

    "layers", "layers and heads", and so on; empty if there is only one matrix.
    """
    places = [column for column in PLURALS if column != hue and column in rows.columns]
    numbers = rows.groupby([hue, "step"])[places].nunique()
    varying = [PLURALS[place] for place in places if (numbers[place] > 1).any()]
    return " and ".join(filter(None, [", ".join(varying[:-1]), *varying[-1:]]))


def line_text(column: str, over: str) -> str:
    """What the line of a metric is, in words."""
    return f"{'median' if quantity(column).log else 'mean'} over {over}"


def band_text(column: str, over: str) -> str:
    """What the band of a metric is, in words."""
    return f"10 to 90 % of {over}" if quantity(column).log else f"min to max over {over}"
