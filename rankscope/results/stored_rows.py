"""Rows of the table, and the spectra in the store that they were made from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from rankscope.errors import RankscopeError
from rankscope.results.spectra_store import MATRIX, Entry, read_entries, store_path

Place = tuple[object, ...]
PLACE = (*MATRIX, "since")
UNSAID = "unsaid"  # in files of version 1, which state of no change since when it is


def by_step(
    table: pd.DataFrame, folder: Path
) -> Iterator[tuple[str, int, pd.DataFrame, dict[Place, Entry]]]:
    """Yield each run and step with its rows and their spectra by place; reads each file once.

    The store may also hold what earlier calls asked for: only the spectra of the rows are given.

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
        asked = places(rows[~is_skipped(rows)])
        yield run, step, rows, _of_rows(asked, _stored(store_path(folder, run, step)))


def places(rows: pd.DataFrame) -> list[Place]:
    """Which matrix of its run and step each row is of, and since when where it is a change."""
    there = rows[list(PLACE)].astype(object)
    return list(there.where(there.notna(), None).itertuples(index=False, name=None))


def _of_rows(asked: Iterable[Place], entries: Iterable[Entry]) -> dict[Place, Entry]:
    rows = {place: place for place in asked}
    rows |= {(*place[:-1], UNSAID): place for place in rows}
    found: dict[Place, Entry] = {}
    for entry in entries:
        row = rows.get(tuple(entry.place.get(key, UNSAID) for key in PLACE))
        if row is not None:
            found.setdefault(row, entry)
    return found


def is_skipped(rows: pd.DataFrame) -> pd.Series[bool]:
    """Whether a row is of a matrix that could not be decomposed."""
    return rows["status"].str.startswith("skipped:")


def _stored(path: Path) -> list[Entry]:
    try:
        return read_entries(path)
    except RankscopeError as error:
        advice = "remove it, and `rankscope analyze` computes it again"
        raise RankscopeError(f"{error.message}: {advice}", path=path, reason="damaged") from error
