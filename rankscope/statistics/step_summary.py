"""Statistics over the matrices of a step, as shown by a line, its band and its markers."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from rankscope import metrics
from rankscope.statistics.many_at_once import MOST, WHOLE, centres
from rankscope.statistics.quantities import Quantity, quantity
from rankscope.statistics.replicates import Over, are_replicates, in_common, runs_over
from rankscope.statistics.restart_schedules import restarts_of
from rankscope.statistics.row_choice import require_metric

NOISY_SHARE = 1e-3  # of Σσ; spread over some hundred values, 1 % of an effective rank

IS_NOISY = "rounding noise matters"  # a column beside those of the table: no identifier
PLURALS = {"run": "runs", "layer": "layers", "role": "roles", "head": "heads", "expert": "experts"}
PLURALS |= {"side": "sides"}


def summary(
    rows: pd.DataFrame, column: str, *, hue: str = "run", cuts: Cuts | None = None
) -> pd.DataFrame:
    """Summarise a metric over the matrices of every step, and over runs that are replicates.

    Where a series has several runs, or ``hue`` is the column of `grouped`, each run is summarised
    over its matrices first. The mean of these values (the median, for a quantity that spans
    decades) is then the centre, their least and greatest are the ends of the band, and steps that
    some run of the series lacks are left out. A single run has no band there.

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

    Raises
    ------
    WrongSettingError
        If there is no such metric, or the runs of every series have no step in common.
    """
    require_metric(rows, column)
    drawn = quantity(column)
    window = rows["window"].fillna("") if "window" in rows else ""
    is_noisy = noise_matters(rows) if drawn.tail else False
    rows = rows.assign(window=window, **{IS_NOISY: is_noisy})
    keys, used = [hue, "window", "step"], in_common(rows, hue)
    if are_replicates(rows, hue):
        points = over_runs(_over_matrices(used, column, [*keys, "run"], drawn), keys, log=drawn.log)
    else:
        points = _over_matrices(used, column, keys, drawn)
    return points.assign(stretch=_stretches(rows, points, hue, cuts or Cuts()))


def _over_matrices(
    rows: pd.DataFrame, column: str, keys: list[str], drawn: Quantity
) -> pd.DataFrame:
    """Points that are summarised over all rows with the same keys."""
    censored = None
    if column == "condition_number":
        censored = (rows["condition_number_status"] == "lower-bound").to_numpy(bool)
    values = rows[keys].assign(
        value=rows[column], noisy=rows[IS_NOISY], bound=False if censored is None else censored
    )
    return summarised_by(
        values,
        keys,
        log=drawn.log,
        band=MOST if drawn.log else WHOLE,
    )


def over_runs(points: pd.DataFrame, keys: list[str], *, log: bool) -> pd.DataFrame:
    """Points of single runs as one point per ``keys``, whose band is over the runs.

    Parameters
    ----------
    points
        One row per run and point: ``centre``, ``undefined``, ``noisy``, ``bound`` and ``keys``.
    keys
        Columns that identify a point of several runs.
    log
        Whether the quantity spans decades.
    """
    merged = summarised_by(points.assign(value=points["centre"]), keys, log=log, band=WHOLE)
    of_runs = points.groupby(keys, sort=True)
    is_alone = of_runs["centre"].count().to_numpy() == 1
    ends = {end: merged[end].mask(is_alone) for end in ("low", "high")}
    return merged.assign(undefined=of_runs["undefined"].sum().to_numpy(), **ends)


def summarised_by(
    rows: pd.DataFrame, keys: list[str], *, log: bool, band: tuple[float, float]
) -> pd.DataFrame:
    """The ``value`` of all rows with the same keys as one point, in the order of the keys.

    ``bound`` says which values are known only from below, ``noisy`` which to mark.
    """
    groups = rows.groupby(keys, sort=True)
    first = groups[["noisy"]].any()
    of = np.asarray(groups.ngroup(), dtype=np.intp)
    values = rows["value"].to_numpy(dtype=np.float64, na_value=np.nan)
    inside = of >= 0  # without a key, as matrices outside the layers, a row is in no series
    found = centres(
        values[inside],
        of[inside],
        len(first),
        log=log,
        band=band,
        censored=rows["bound"].to_numpy(bool)[inside],
    )
    points: pd.DataFrame = first.reset_index()
    return points.assign(
        centre=found.centre,
        low=found.low,
        high=found.high,
        undefined=found.unknown,
        bound=found.bound,
    ).astype({"step": "int64"})


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
    """Cuts of all runs: breaks are in the table's ``attrs``, restarts are from `restarts_of`."""
    return Cuts(table.attrs.get("breaks", {}), restarts_of(table))


def _stretches(rows: pd.DataFrame, points: pd.DataFrame, hue: str, cuts: Cuts) -> pd.Series[int]:
    stretches = pd.Series(0, index=points.index)
    there = [name for name in (hue, "run", "window", "step") if name in rows]
    places = rows[list(dict.fromkeys(there))].drop_duplicates()
    for (name, window), line in points.groupby([hue, "window"], sort=False):
        series = places[places[hue] == name]
        is_kind = series["window"] == window
        at: set[float] = set()
        if "run" in series:
            runs = set(series.loc[is_kind, "run"])
            at = set(series.loc[series["run"].isin(runs) & ~is_kind, "step"]) - {*line["step"]}
            at |= {cuts.breaks[run] for run in runs if run in cuts.breaks}
            if window == "within":
                # A window from the restart on has the next adapter, one up to it the previous one.
                at |= {step + 0.5 for run in runs for step in cuts.restarts.get(run, ())}
        stretches[line.index] = np.searchsorted(sorted(at), line["step"], side="right")
    return stretches


def known_centres(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Points of a `summary` that are known, for arithmetic with them.

    Left out are steps at which no matrix has a value, and centres that are infinite or only a
    lower bound. Quantities that span decades enter by their decimal logarithm.

    Returns
    -------
    Columns ``run``, ``step``, ``centre``; the same to the last bit in any order of the rows.
    """
    require_metric(rows, column)
    drawn = quantity(column)
    points = summary(rows, column)
    is_known = np.isfinite(points["centre"]) & ~points["bound"].astype(bool)
    known: pd.DataFrame = points.loc[is_known, ["run", "step", "centre"]]
    return known.assign(centre=np.log10(known["centre"])) if drawn.log else known


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


def summarised_over(rows: pd.DataFrame, *, hue: str = "run") -> Over:
    """What varies among the matrices of one series at one step, in words.

    "layers", "layers and heads", and so on; false if there is only one matrix. Where series are of
    several runs: what varies within one, and how many runs there are.
    """
    is_of_runs = are_replicates(rows, hue)
    places = [column for column in PLURALS if column != hue and column in rows.columns]
    one = [hue, "step", *(["run"] if is_of_runs else [])]
    numbers = rows.groupby(list(dict.fromkeys(one)))[[p for p in places if p not in one]].nunique()
    varying = [PLURALS[str(place)] for place in numbers if (numbers[place] > 1).any()]
    words = " and ".join(filter(None, [", ".join(varying[:-1]), *varying[-1:]]))
    return replace(runs_over(rows, hue), places=words)


def line_text(column: str, over: Over) -> str:
    """What the line of a metric is, in words."""
    return f"{'median' if quantity(column).log else 'mean'} over {over}"


def band_text(column: str, over: Over) -> str:
    """What the band of a metric is, in words."""
    if over.runs:
        return f"min to max over {over.runs}"
    return f"10 to 90 % of {over}" if quantity(column).log else f"min to max over {over}"
