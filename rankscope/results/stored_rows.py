"""Rows of the table, and the spectra in the store that they were made from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from rankscope.errors import RankscopeError
from rankscope.results.spectra_store import MATRIX, Entry, read_entries, store_path

Place = tuple[object, ...]


def by_step(
    table: pd.DataFrame, folder: Path
) -> Iterator[tuple[str, int, pd.DataFrame, list[Entry]]]:
    """Yield each run and step with its rows and their stored spectra; reads each file once.

    Of files that changed since, the store may also hold the matrices of earlier calls: only those
    that the rows are of are given.

    Parameters
    ----------
    folder
        The spectra store.

    Raises
    ------
    RankscopeError
        If a file of the store is damaged.
    """
    for (name, at), rows in table.groupby(["run", "step"], sort=False):
        run, step = str(name), int(str(at))
        asked = set(places(rows[~is_skipped(rows)]))
        entries = _stored(store_path(folder, run, step))
        yield run, step, rows, [entry for entry in entries if place_of(entry) in asked]


def places(rows: pd.DataFrame) -> list[Place]:
    """Which matrix of its run and step each row is of."""
    there = rows[list(MATRIX)].astype(object)
    return list(there.where(there.notna(), None).itertuples(index=False, name=None))


def place_of(entry: Entry) -> Place:
    """Which matrix of its run and step an entry is of."""
    return tuple(entry.place[key] for key in MATRIX)


def is_skipped(rows: pd.DataFrame) -> pd.Series[bool]:
    """Whether a row is of a matrix that could not be decomposed."""
    return rows["status"].str.startswith("skipped:")


def _stored(path: Path) -> list[Entry]:
    try:
        return read_entries(path)
    except RankscopeError as error:
        advice = "remove it, and `rankscope analyze` computes it again"
        raise RankscopeError(f"{error.message}: {advice}", path=path, reason="damaged") from error
