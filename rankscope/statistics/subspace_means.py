"""Comparisons of singular subspaces, chosen and averaged over matrices for figures."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import Literal, get_args

import numpy as np
import pandas as pd

from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.statistics.replicates import in_common
from rankscope.statistics.row_choice import chosen_rows
from rankscope.statistics.step_summary import cuts_of

Measure = Literal["overlap", "least_cosine", "intruders", "update_energy"]
Against = Literal["previous", "first", "last"]
AGAINST: tuple[Against, ...] = get_args(Against)
STATUSES = {"no-gap": "no gap", "zero": "zero", "nonfinite": "not finite"}
PAIR = ("step", "against")
_MATRIX = ["run", "component", "layer", "role", "head", "expert", "name"]


def has_comparisons(table: pd.DataFrame, measure: Measure, component: str) -> bool:
    """Whether a table of subspaces has a number for this measure and component."""
    if table.empty:
        return False
    there = table["measure"].eq(measure) & table["component"].eq(component)
    return bool(table.loc[there, "value"].notna().any())


def comparisons(
    table: pd.DataFrame,
    measure: Measure,
    *,
    component: str = "weight",
    role: str | None = None,
    against: Against = "previous",
) -> pd.DataFrame:
    """Rows of one measure that compare each matrix with its previous, first or last checkpoint.

    The second checkpoint of a run is compared once, with a checkpoint that is both.

    Raises
    ------
    RankscopeError
        If there are no such rows or comparisons, or no subspaces were measured.
    WrongSettingError
        If ``against`` is another word.
    """
    if against not in AGAINST:
        raise WrongSettingError(f"`against` is {against!r}: choose one of {', '.join(AGAINST)}")
    if table.empty:
        raise RankscopeError("no subspaces were measured: call `analyze` with `subspaces`")
    rows = chosen_rows(table, component=component, role=role)
    rows = rows[rows["measure"] == measure]
    if rows.empty:
        raise RankscopeError(f"the table of subspaces has no {measure} of {component!r}")
    there = rows[_is_against(rows, against)]
    if there.empty:
        raise RankscopeError(
            f"no {measure} of {component!r} is against the {against} checkpoint: `against` of "
            "`analyze` chooses what subspaces are compared with"
        )
    return there


def at_whole_rank(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of `comparisons` of merges that compare them at their whole rank.

    Where that was not measured, at the largest size that was.
    """
    largest = rows.groupby(["run", "name", "step", "side"])["k"].transform("max")
    whole: pd.DataFrame = rows[rows["k"] == largest]
    return whole


def _is_against(rows: pd.DataFrame, against: Against) -> pd.Series[bool]:
    """Which rows compare a matrix with the previous, the first or the last of its checkpoints.

    A table may hold any of these comparisons. What a matrix is compared with tells its steps, and
    a step that is compared with no earlier one begins its series, or a new one after a break.
    """
    pairs = rows[[*_MATRIX, "step", "against"]].drop_duplicates()
    is_earlier = pairs["against"] < pairs["step"]
    if against == "last":
        return rows["against"] > rows["step"]
    steps = pd.concat([pairs[[*_MATRIX, at]].set_axis([*_MATRIX, "step"], axis=1) for at in PAIR])
    steps = steps.drop_duplicates().sort_values("step")
    begun = pairs.loc[is_earlier, [*_MATRIX, "step"]].drop_duplicates().assign(begins=False)
    steps = steps.merge(begun, on=[*_MATRIX, "step"], how="left")
    steps["begins"] = steps["begins"].isna()
    of_matrix = steps.groupby(_MATRIX, dropna=False)["step"]
    if against == "previous":
        wanted = of_matrix.shift()
    else:
        starts = steps.assign(step=steps["step"].where(steps["begins"]))
        wanted = starts.groupby(_MATRIX, dropna=False)["step"].ffill()
    known = rows[[*_MATRIX, "step"]].merge(
        steps.assign(wanted=wanted), on=[*_MATRIX, "step"], how="left"
    )
    is_wanted = known["wanted"].set_axis(rows.index) == rows["against"]
    return is_wanted.fillna(False).astype(bool)


def shares(rows: pd.DataFrame, *, hue: str = "run", x: str = "step") -> pd.DataFrame:
    """Average shares, such as overlaps, over the matrices of each series and step.

    A series of several runs is the mean of theirs, at the steps that all of them have. Rows without
    a number do not enter.

    Parameters
    ----------
    rows
        From `comparisons`: one measure and one size.
    hue, x
        The columns that identify the series and the position.

    Returns
    -------
    Columns ``hue``, ``x``, ``value``, ``null``, and ``low`` to ``high``, which contains the mean
    of the run whatever the arithmetic and the rounding of the stored numbers did within their
    bounds, and of several runs the means of all; ``stretch``, which differs where another model
    begins.
    """
    doubt = rows["error"] + rows["noise"].fillna(np.inf)
    low, high = (rows["value"] - doubt).clip(lower=0), (rows["value"] + doubt).clip(upper=1)
    return _means(rows.assign(low=low, high=high), hue, x)


def intruder_counts(rows: pd.DataFrame, *, hue: str = "run", x: str = "step") -> pd.DataFrame:
    """Average the number of intruders per matrix, as `shares` does.

    ``value`` is the mean of the certain ones; ``low`` to ``high`` takes those that the arithmetic
    or storage leaves undecided as none or all. A row's ``noise`` counts vectors that are undecided
    with storage, among which may be certain ones: at most as many as exceed ``error``.
    """
    noise = rows["noise"].fillna(rows["k"])
    low = rows["value"] - (noise - rows["error"]).clip(lower=0)
    high = rows["value"] + np.maximum(noise, rows["error"])
    known = rows.assign(low=low.clip(lower=0), high=np.minimum(high, rows["k"]))
    return _means(known, hue, x)


def _means(rows: pd.DataFrame, hue: str, x: str) -> pd.DataFrame:
    numbers = ["value", "low", "high", "null"]
    known = rows[rows["value"].notna()].astype(dict.fromkeys(numbers, "float64"))
    known = in_common(known.assign(step=known[x]), hue)
    matrices = known.groupby([*dict.fromkeys((hue, "run", x))], sort=True)[numbers]
    # Where one matrix has no null, the others' mean is of other matrices.
    runs = matrices.mean(skipna=False).groupby([hue, x], sort=True)
    ends = {"low": runs["low"].min(), "high": runs["high"].max()}
    points = runs.mean(skipna=False).assign(**ends).reset_index()
    return points.assign(stretch=_stretches(rows, points, hue, x))


def _stretches(rows: pd.DataFrame, points: pd.DataFrame, hue: str, x: str) -> Sequence[int]:
    breaks = cuts_of(rows).breaks if x == "step" else {}
    runs = rows.groupby(hue)["run"].unique()
    at = {name: sorted({breaks[run] for run in runs[name] if run in breaks}) for name in runs.index}
    places = zip(points[hue], points[x], strict=True)
    return [int(np.searchsorted(at[name], place, side="right")) for name, place in places]


def left_out(rows: pd.DataFrame) -> str:
    """How many comparisons have no number and why, in words; empty if all have one."""
    counts = rows.loc[rows["value"].isna(), "status"].value_counts()
    reasons = [f"{n} of {len(rows)} ({STATUSES[str(status)]})" for status, n in counts.items()]
    return f"left out: {', '.join(reasons)}" if reasons else ""


def compared_merges(
    table: pd.DataFrame, *, role: str | None = None, against: Against = "previous"
) -> pd.DataFrame:
    """Comparisons of merges at their rank, with ``merge``, the number of each in its run."""
    every = comparisons(table, "overlap", component="merge", role=role, against=against)
    rows = at_whole_rank(every)
    if rows["value"].isna().all():
        raise RankscopeError(f"no overlap of merges has a number: {left_out(rows)}")
    merges = table[table["component"] == "merge"]
    numbers = {
        run: {step: i for i, step in enumerate(sorted({*own["step"], *own["against"]}), start=1)}
        for run, own in merges.groupby("run")
    }
    places = zip(rows["run"], rows["step"], strict=True)
    return rows.assign(merge=[numbers[run][step] for run, step in places])


def known_comparisons(
    table: pd.DataFrame,
    measure: Measure,
    *,
    component: str = "weight",
    role: str | None = None,
    against: Against = "previous",
) -> pd.DataFrame:
    """`comparisons`, of which some have a number."""
    rows = comparisons(table, measure, component=component, role=role, against=against)
    if rows["value"].isna().all():
        raise RankscopeError(f"no {measure} of {component!r} has a number: {left_out(rows)}")
    return rows


def by_reference(
    table: pd.DataFrame, measure: Measure, *, component: str, role: str | None
) -> dict[Against, pd.DataFrame]:
    """Known comparisons by the checkpoint that they are with; those with the previous, or none."""
    known = partial(known_comparisons, table, measure, component=component, role=role)
    found: dict[Against, pd.DataFrame] = {}
    for against in AGAINST:
        with suppress(RankscopeError):
            found[against] = known(against=against)
    return found or {"previous": known(against="previous")}


def of_size(rows: pd.DataFrame, k: int) -> pd.DataFrame:
    """Comparisons of subspaces of k dimensions."""
    there = rows[rows["k"] == k]
    if there.empty:
        sizes = ", ".join(map(str, sorted(set(rows["k"]) - {0})))
        raise WrongSettingError(f"no subspaces of {k} dimensions: choose k from {sizes}")
    return there
