"""Runs as replicates: which of them a pattern puts together, and what is of all of them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from rankscope.errors import WrongSettingError, printable

RUN_GROUP = "run_group"
"""The column that holds the group of each run."""
AGAINST, AGAINST_GROUP = "against_run", "against_run_group"
"""The run on the other side of a similarity, and its group."""


def grouped(table: pd.DataFrame, pattern: str) -> pd.DataFrame:
    r"""Return the table with a column ``run_group``, in which replicates have one name.

    Runs whose names match alike are replicates, such as trainings that differ only in a seed. The
    text that the parentheses of the pattern capture in a run's name, joined by ``-``, is the name
    of its group; without parentheses, it is the text that matches. Runs that do not match stay
    alone, under their own names.

    A line drawn with ``hue="run_group"`` then stands for several runs: each is first summarised
    over its matrices as usual; the line is the mean of the runs (the median, for quantities that
    span decades), and the band reaches from the least to the greatest of them. Steps that some of
    the runs lack are left out. A group of one run has no band.

    Parameters
    ----------
    table
        Any table with a column ``run``: metrics, evaluation, training, correlations.
    pattern
        A regular expression, searched in the name of each run: ``(.*)-seed\d+``, say.

    Returns
    -------
    A copy; the table itself does not change.

    Raises
    ------
    WrongSettingError
        If the pattern is not a regular expression or matches no run, if a run that it does not
        match has the name of a group, or if runs that do not match alike would have one name.

    Examples
    --------
    >>> import pandas as pd
    >>> import rankscope as rs
    >>> table = pd.DataFrame({"run": ["full", "relora-0", "relora-1"], "per": [0.7, 0.4, 0.5]})
    >>> rs.grouped(table, r"(.*)-\d+")["run_group"].tolist()
    ['full', 'relora', 'relora']
    """
    if "run" not in table.columns:
        raise WrongSettingError("the table has no column 'run': there is nothing to group")
    return with_groups(table, groups_of(all_runs(table), pattern))


def all_runs(table: pd.DataFrame) -> list[str]:
    """Names of all runs in a table, on either side of what it compares."""
    columns = [table[name] for name in ("run", AGAINST) if name in table]
    return [str(run) for run in pd.concat(columns).dropna().unique()] if columns else []


def with_groups(table: pd.DataFrame, groups: Mapping[str, str]) -> pd.DataFrame:
    """The table with the group of each run, from `groups_of`."""
    # "str" as in tables that are read, also where the table has no rows.
    sides = {RUN_GROUP: "run"} | ({AGAINST_GROUP: AGAINST} if AGAINST in table else {})
    of_runs = {name: table[side].map(groups).astype("str") for name, side in sides.items()}
    return table.assign(**of_runs)


def groups_of(runs: Iterable[str], pattern: str) -> dict[str, str]:
    """Group of every run by its name, as `grouped` says; nothing for no runs."""
    names = list(dict.fromkeys(runs))
    parts = _captured(names, pattern)
    groups = {name: "-".join(filter(None, captured)) for name, captured in parts.items()}
    if names and not groups:
        raise WrongSettingError(
            f"{pattern!r} in `group` matches no run: there are {_listing(names)}"
        )
    alike = {groups[name]: parts[name] for name in groups}
    for name in names:
        if name in groups and alike[groups[name]] != parts[name]:
            raise WrongSettingError(
                f"{pattern!r} in `group` makes one group {groups[name]!r} of runs that do not "
                f"match alike, such as {printable(name)}: choose other parentheses"
            )
        if name not in groups and name in groups.values():
            raise WrongSettingError(
                f"{pattern!r} in `group` makes a group {name!r}, which is also the name of a run "
                "that it does not match: choose a pattern that matches it, or other parentheses"
            )
    return {name: groups.get(name, name) for name in names}


def _captured(names: Iterable[str], pattern: str) -> dict[str, tuple[str, ...]]:
    """What the parentheses, or without them the whole pattern, matched in each run that matches."""
    try:
        matches = {name: re.search(pattern, name) for name in names}
    except re.error as error:
        raise WrongSettingError(
            f"{pattern!r} in `group` is not a regular expression: {error}"
        ) from None
    parts = {
        name: match.groups("") if match.re.groups else (match[0],)
        for name, match in matches.items()
        if match is not None
    }
    return {name: captured for name, captured in parts.items() if any(captured)}


def _listing(names: list[str], most: int = 8) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} others"


def by_group(table: pd.DataFrame, group: str | None, hue: str) -> tuple[pd.DataFrame, str]:
    """The table and the hue to draw, for the settings ``group`` and ``hue`` of a figure.

    Raises
    ------
    WrongSettingError
        As `grouped`, and if both are given.
    """
    if group is None:
        return table, hue
    if hue != "run":
        raise WrongSettingError(f"`group` and `hue` {hue!r} both say what the lines are: give one")
    return grouped(table, group), RUN_GROUP


def group_names(runs: Collection[object] | None, group: str | None) -> Collection[object] | None:
    """Names of the series of all ``runs`` of a study, which decide their colours; None for None."""
    if runs is None or group is None:
        return runs
    return {*groups_of(map(str, runs), group).values()}


def are_replicates(rows: pd.DataFrame, hue: str) -> bool:
    """Whether series are of runs put together: by `grouped`, or because one has several."""
    if hue == "run" or "run" not in rows:
        return False
    return hue == RUN_GROUP or len(rows[[hue, "run"]].dropna().drop_duplicates()) > len(
        rows[hue].dropna().unique()
    )


def at_common_steps(rows: pd.DataFrame, hue: str) -> pd.Series[bool]:
    """Which rows are at a step, and in a kind of window, that all runs of their series have."""
    series = [hue, "window"] if "window" in rows else [hue]
    places = rows[[*series, "step", "run"]].fillna({"window": ""}).drop_duplicates()
    runs = places.groupby(series)["run"].nunique().rename("runs")
    there = places.groupby([*series, "step"]).size().rename("there").reset_index()
    complete = there.join(runs, on=series)
    complete = complete.loc[complete["there"] == complete["runs"], [*series, "step"]]
    keys = rows[[*series, "step"]].fillna({"window": ""})
    is_common = pd.MultiIndex.from_frame(keys).isin(pd.MultiIndex.from_frame(complete))
    return pd.Series(is_common, index=rows.index)


@dataclass(frozen=True)
class Over:
    """What a line and its band are over, in words; false where there is a single matrix.

    Attributes
    ----------
    places
        What varies among the matrices of one run: "layers and heads".
    runs
        How many runs the lines are of, where they are of groups: "3 runs", "3 runs (old: 1)".
    left_out
        How many steps some run of a series lacks.
    """

    places: str = ""
    runs: str = ""
    left_out: int = 0

    def __bool__(self) -> bool:
        return bool(self.places or self.runs)

    def __str__(self) -> str:
        return ", then over ".join(filter(None, [self.places, self.runs]))


def runs_over(rows: pd.DataFrame, hue: str) -> Over:
    """How many runs the series are of, and how many steps that costs; false if of single runs."""
    if not are_replicates(rows, hue):
        return Over()
    left_out = 0
    if "step" in rows:
        incomplete = rows.loc[~at_common_steps(rows, hue), [hue, "step"]]
        left_out = len(incomplete.drop_duplicates())
    return Over(runs=_run_counts(rows.groupby(hue)["run"].nunique()), left_out=left_out)


def _run_counts(counts: pd.Series[int]) -> str:
    """How many runs the groups have, with the names of one or two that have another number."""
    usual = int(counts.mode().max())
    others = counts[counts != usual]
    if len(others) > 2:
        return f"{counts.min()}–{counts.max()} runs"
    named = ", ".join(f"{printable(str(name), limit=16)}: {n}" for name, n in others.items())
    return f"{usual} run{'s' * (usual > 1)}" + (f" ({named})" if named else "")


def in_common(rows: pd.DataFrame, hue: str) -> pd.DataFrame:
    """Rows at the steps that all runs of their series have; all rows, of series of single runs.

    Raises
    ------
    WrongSettingError
        If there are none.
    """
    if not are_replicates(rows, hue):
        return rows
    common = rows[at_common_steps(rows, hue)]
    if common.empty and len(rows):
        raise none_in_common(rows, hue)
    return common


def none_in_common(rows: pd.DataFrame, hue: str) -> WrongSettingError:
    """What to raise where runs that are replicates have no step in common."""
    name = str(rows[hue].iloc[0])
    runs = [str(run) for run in rows.loc[rows[hue] == name, "run"].unique()]
    return WrongSettingError(
        f"the runs of {name!r} in `group` have no step in common: {_listing(runs)}"
    )
