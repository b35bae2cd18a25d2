"""Restarts of runs: at which steps their adapters were merged and begun anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

RESTARTS = "restarts"
"""Key of ``attrs``: by run, the steps of its restarts, for tables that have no rows of them."""


def restarts_of(table: pd.DataFrame) -> dict[str, list[int]]:
    """Steps of the restarts of each run, ascending, as far as a table knows them.

    They are the restarts of a training log (``event``) or the recorded merges of a metrics table
    (``component``). What a table has no rows of may be in its ``attrs``, by run.
    """
    there = {str(run): sorted(steps) for run, steps in table.attrs.get(RESTARTS, {}).items()}
    for column, value in (("event", "restart"), ("component", "merge")):
        if {column, "run", "step"} <= {*table.columns}:
            rows = table[(table[column] == value).to_numpy(bool, na_value=False)]
            steps = rows[["run", "step"]].drop_duplicates().groupby("run")["step"]
            there |= {str(run): sorted(map(int, of_run)) for run, of_run in steps}
    return there


@dataclass(frozen=True)
class Schedule:
    """Restarts that some series have in common.

    Attributes
    ----------
    steps
        The steps, ascending.
    names
        The series.
    """

    steps: tuple[int, ...]
    names: tuple[object, ...]


def schedules(rows: pd.DataFrame, restarts: Mapping[str, list[int]], *, hue: str) -> list[Schedule]:
    """The different schedules of restarts among the series of a figure, longest first.

    Only restarts between the first and the last step of the rows count. A run that ended before the
    next restart of a longer run has the schedule of that run.

    Parameters
    ----------
    rows
        The rows drawn, with columns ``run``, ``step`` and ``hue``.
    restarts
        Steps by run, from `restarts_of`.
    hue
        The column that identifies the series.
    """
    ends = rows.groupby("run")["step"].max().to_dict()
    first, last = rows["step"].min(), rows["step"].max()
    pairs = rows[list(dict.fromkeys([hue, "run"]))].dropna().drop_duplicates()
    names: dict[str, list[object]] = {}
    for name, run in zip(pairs[hue], pairs["run"], strict=True):
        names.setdefault(str(run), []).append(name)
    within = {run: tuple(s for s in restarts.get(run, ()) if first <= s <= last) for run in names}
    found: dict[tuple[int, ...], list[object]] = {}
    for run in sorted(names, key=lambda run: (-len(within[run]), run)):
        steps = within[run]
        if not steps:
            continue
        longer = (s for s in found if s[: len(steps)] == steps and _is_over(ends[run], s, steps))
        found.setdefault(next(longer, steps), []).extend(names[run])
    return [Schedule(steps, tuple(dict.fromkeys(of))) for steps, of in found.items()]


def _is_over(end: int, longer: tuple[int, ...], steps: tuple[int, ...]) -> bool:
    """Whether a run that ended at ``end`` did not live to see the next restart."""
    return len(longer) == len(steps) or end < longer[len(steps)]
