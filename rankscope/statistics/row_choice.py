"""Rows of the metrics table, chosen by component, role and run."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
from pandas.api.types import is_numeric_dtype

from rankscope.checkpoints.families.names import ROLES
from rankscope.errors import WrongSettingError, closest_first
from rankscope.statistics.quantities import QUANTITIES

SERIES = "series"
"""Key of ``attrs``: the names of all series of the study, by column."""


def chosen_rows(
    table: pd.DataFrame, *, component: str, role: str | None = None, run: str | None = None
) -> pd.DataFrame:
    """Rows of one component, and of one role and one run if given.

    Raises
    ------
    WrongSettingError
        If a column is missing or there are no such rows; the message says what exists.
    """
    wanted = {"component": component, "role": role, "run": run}
    is_chosen = np.ones(len(table), np.bool_)
    for column, value in wanted.items():
        if value is None:
            continue
        if column not in table.columns:
            raise WrongSettingError(f"the table has no column {column!r}: pass the metrics table")
        is_value = (table[column] == value).to_numpy(np.bool_, na_value=False)
        if not (is_chosen & is_value).any():
            there = table.loc[is_chosen, column].dropna().unique()
            listing = ", ".join(map(str, there)) or "nothing"
            raise WrongSettingError(f"no rows with {column} {value!r}: the table holds {listing}")
        is_chosen &= is_value
    return table if is_chosen.all() else table[is_chosen]  # a copy may take half a gigabyte


def distinct(table: pd.DataFrame, column: str) -> list[object]:
    """Distinct values of a column, without missing ones.

    Raises
    ------
    WrongSettingError
        If there is no such column.
    """
    if column not in table.columns:
        raise WrongSettingError(
            f"the table has no column {column!r}: it has {', '.join(map(str, table))}"
        )
    return list(table[column].dropna().unique())


def require_metric(table: pd.DataFrame, column: str) -> None:
    """Check that a column can be drawn: a metric, or a column of numbers of one's own.

    Raises
    ------
    WrongSettingError
        If the table has no such column, or its values are not numbers.
    """
    if column not in table.columns or not is_numeric_dtype(table[column]):
        known = closest_first(column, QUANTITIES)
        raise WrongSettingError(  # the list, which may be cut, comes last
            f"unknown metric {column!r}: choose a column of numbers of your own, or one of {known}"
        )


def series_names(table: pd.DataFrame, column: str) -> list[object]:
    """Names of all series of the study, which decide how each of them looks.

    Those in the table, and where it is a selection those that its ``attrs`` list.
    """
    study = table.attrs.get(SERIES, {}).get(column, [])
    return list(dict.fromkeys([*study, *distinct(table, column)]))


def step_label(table: pd.DataFrame) -> str:
    """What the steps of a table count, which results keep beside their tables: ``step``, say."""
    return str(table.attrs.get("unit", "step"))


def by_run(table: pd.DataFrame, column: str) -> dict[str, object]:
    """Values of a column by run, for tables that lack it.

    Raises
    ------
    WrongSettingError
        If there is no such column, or a run has several values of it.
    """
    distinct(table, column)
    values = table[["run", column]].drop_duplicates()
    if values["run"].duplicated().any():
        raise WrongSettingError(f"a run has several values of {column!r}: use one per run")
    return dict(values.itertuples(index=False, name=None))


def in_order(roles: Iterable[str]) -> list[str]:
    """Distinct roles in the order in which a block uses them; unknown ones last."""
    order: dict[str, int] = {role: i for i, role in enumerate(ROLES)}
    there = roles.unique() if isinstance(roles, pd.Series) else {*roles}
    return sorted(there, key=lambda role: (order.get(role, len(order)), role))


def most_layers(table: pd.DataFrame, component: str) -> int:
    """In how many layers of a run this component is, at most; 0 in a table without layers."""
    if not {"component", "layer"} <= {*table.columns}:
        return 0
    layers = table[table["component"] == component].groupby("run")["layer"].nunique()
    return int(layers.max()) if len(layers) else 0


def role_titles(rows: pd.DataFrame) -> dict[str, str]:
    """Title of the panel of every role of one component, in order; see `role_title`."""
    return {role: role_title(role, rows[rows["role"] == role]) for role in in_order(rows["role"])}


def span_text(numbers: Iterable[float]) -> str:
    """The least and the greatest of some whole numbers, as ``4`` or ``4–96``; ``?`` of none."""
    every = sorted({*map(int, numbers)})
    return "–".join(map(str, dict.fromkeys(every[:1] + every[-1:]))) or "?"


def shapes(rows: pd.DataFrame) -> list[tuple[int, int]]:
    """Distinct shapes (rows, columns) of the matrices."""
    there = rows[["rows", "cols"]].drop_duplicates().astype(int)
    return sorted(there.itertuples(index=False, name=None))


def role_name(role: str, component: str) -> str:
    """What a panel calls the matrices of a role: an OV circuit has role ``o`` and is not W_O."""
    circuit = component[:2].upper()
    return f"{circuit} circuit" if circuit in ("OV", "QK") else role or "all"


def role_title(role: str, rows: pd.DataFrame) -> str:
    """Title of a panel: its matrices, of one role and component, with their shape if it is one."""
    name, distinct_shapes = role_name(role, str(rows["component"].iloc[0])), shapes(rows)
    if len(distinct_shapes) > 1:
        return name
    height, width = distinct_shapes[0]
    return f"{name}  {height}×{width}"


def titles_with_rank(rows: pd.DataFrame, column: str) -> dict[str, str]:
    """Title of the panel of every role, with the rank that a condition number is taken at."""
    titles = role_titles(rows)
    if column != "condition_number_r":
        return titles
    return {role: title + _rank_text(rows[rows["role"] == role]) for role, title in titles.items()}


def _rank_text(rows: pd.DataFrame) -> str:
    """The ranks at which condition numbers are taken, for a title."""
    ranks = rows.loc[rows["condition_number_r"].notna(), "numerical_rank"].dropna()
    return f", r = {span_text(ranks)}" if len(ranks) else ""
