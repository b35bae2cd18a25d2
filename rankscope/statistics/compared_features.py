"""Similarities of features, in pairs of runs and at steps that can be compared."""

from __future__ import annotations

from collections.abc import Collection

import pandas as pd

from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.statistics.feature_rows import few
from rankscope.statistics.quantities import SIMILARITY_QUANTITIES
from rankscope.statistics.replicates import (
    AGAINST,
    AGAINST_GROUP,
    RUN_GROUP,
    all_runs,
    at_common_steps,
)
from rankscope.statistics.restart_schedules import RESTARTS, restarts_of

PAIR, TIMES = "pair", " × "
MOST_PAIRS, MOST_STEPS = 10, 3


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


def at_common_step(rows: pd.DataFrame, step: int | None) -> pd.DataFrame:
    """Rows at a step, or at the last that all runs have."""
    (chosen,) = chosen_steps(rows, None if step is None else [step])[-1:]
    return rows[rows["step"] == chosen]


def chosen_steps(rows: pd.DataFrame, wanted: Collection[int] | None) -> list[int]:
    """The requested steps, which some run has, or a few of those that all runs have."""
    series = rows.assign(all_runs=0)
    there = sorted({*map(int, rows.loc[at_common_steps(series, "all_runs"), "step"])})
    if wanted is None and not there:
        raise RankscopeError("the runs have no step in common: choose `steps`, or draw one run")
    if wanted is None:
        return few(there, MOST_STEPS)
    missing, any_run = sorted({*wanted} - {*rows["step"]}), sorted({*map(int, rows["step"])})
    if missing:
        listing = ", ".join(map(str, any_run))
        raise WrongSettingError(f"no step {missing[0]} of these runs: choose from {listing}")
    return sorted({*wanted})


def last_step_of_pairs(pairs: pd.DataFrame, column: str, step: int | None) -> int:
    """The step, or the last at which every pair of runs that has numbers has one."""
    pairs = pairs[pairs[column].notna()] if step is None else pairs
    both = pairs[["run", AGAINST]].apply(tuple, axis="columns")
    counts = both.groupby(pairs["step"]).nunique()
    there = [int(one) for one in counts.index[counts == both.nunique()]]
    if step is None and there:
        return there[-1]
    if step is None or step not in counts.index:
        listing = ", ".join(map(str, there or counts.index)) or "none"
        raise WrongSettingError(f"no `step` with all pairs of runs: there are {listing}")
    return step


def pairs_to_draw(rows: pd.DataFrame, hue: str) -> tuple[pd.DataFrame, str]:
    """`in_pairs`, if a figure can show as many lines, and the column that identifies them."""
    if hue not in ("run", RUN_GROUP):
        raise WrongSettingError(f"pairs are of runs or groups of them: `hue` {hue!r} is neither")
    pairs = in_pairs(rows, hue)
    count = pairs[PAIR].nunique()
    if count > MOST_PAIRS:
        raise RankscopeError(
            f"{count} pairs of runs are too many lines: choose runs, put them together with "
            "`group`, or draw `run_similarities`"
        )
    return pairs, PAIR if hue == RUN_GROUP else "run"


def require_similarity(rows: pd.DataFrame, column: str) -> None:
    """Check that a column is a similarity that some row has."""
    if column not in SIMILARITY_QUANTITIES or column not in rows:
        known = ", ".join(SIMILARITY_QUANTITIES)
        raise WrongSettingError(f"unknown similarity {column!r}: choose one of {known}")
    if rows[column].isna().all():
        raise RankscopeError(f"no {column!r} of these features has a value")
