"""Rows of the metrics table, chosen by component, role and run."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from rankscope.errors import RankscopeError

ROLES = ("q", "k", "v", "o", "gate", "up", "down", "embed", "unembed", "router", "other")
"""Roles in the order in which a block uses them; others come after, by name."""


def chosen_rows(
    table: pd.DataFrame, *, component: str, role: str | None = None, run: str | None = None
) -> pd.DataFrame:
    """Rows of one component, and of one role and one run where these are given.

    Raises
    ------
    RankscopeError
        If a column is missing or there are no such rows: the message says what there is.
    """
    wanted = {"component": component, "role": role, "run": run}
    for column, value in wanted.items():
        if value is None:
            continue
        if column not in table.columns:
            raise RankscopeError(f"the table has no column {column!r}: give the metrics table")
        rows = table[table[column] == value]
        if rows.empty:
            there = ", ".join(map(str, table[column].dropna().unique())) or "nothing"
            raise RankscopeError(f"no rows with {column} {value!r}: the table holds {there}")
        table = rows
    return table


def distinct(table: pd.DataFrame, column: str) -> list[object]:
    """Distinct values of a column, without missing ones; `RankscopeError` if there is no such."""
    if column not in table.columns:
        raise RankscopeError(
            f"the table has no column {column!r}: it has {', '.join(map(str, table))}"
        )
    return list(table[column].dropna().unique())


def has_component(table: pd.DataFrame, component: str) -> bool:
    """Whether there is at least one row of this component."""
    return "component" in table.columns and bool((table["component"] == component).any())


def in_order(roles: Iterable[str]) -> list[str]:
    """Roles without repetition, attention first, then the MLP, then the embeddings."""
    place = {role: i for i, role in enumerate(ROLES)}
    return sorted(set(roles), key=lambda role: (place.get(role, len(place)), role))


def shapes(rows: pd.DataFrame) -> list[tuple[int, int]]:
    """The distinct shapes (rows, columns) among matrices."""
    return sorted(set(zip(rows["rows"].astype(int), rows["cols"].astype(int), strict=True)))


def role_title(role: str, rows: pd.DataFrame) -> str:
    """Title of a panel: the role, with the shape of its matrices if they share one."""
    there = shapes(rows)
    name = role or "all"
    return f"{name}  {there[0][0]}×{there[0][1]}" if len(there) == 1 else name
