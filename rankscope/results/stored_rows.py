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
        there = rows[~is_skipped(rows)]
        yield run, step, rows, _of_rows(there, _stored(store_path(folder, run, step)))


def places(rows: pd.DataFrame) -> list[Place]:
    """Which matrix of its run and step each row describes, and for a change, since when."""
    there = rows[list(PLACE)].astype(object)
    return list(there.where(there.notna(), None).itertuples(index=False, name=None))


def _of_rows(there: pd.DataFrame, entries: Iterable[Entry]) -> dict[Place, Entry]:
    """The entry that each row was made from.

    Calls for other steps may have stored the same change, and of other numbers, if its checkpoint
    was written anew since. Such an entry knows the change before it where the row's own does not,
    or the other way round.
    """
    has_cosine = (
        there["update_cosine"].notna() if "update_cosine" in there else [False] * len(there)
    )
    cosines = dict(zip(places(there), has_cosine, strict=True))
    rows = {place: place for place in cosines}
    rows |= {(*place[:-1], UNSAID): place for place in rows}
    found: dict[Place, tuple[tuple[bool, bool], Entry]] = {}
    for entry in entries:
        row = rows.get(tuple(entry.place.get(key, UNSAID) for key in PLACE))
        if row is not None:
            fits = "since" in entry.place, entry.has_cosine == cosines[row]
            if row not in found or fits > found[row][0]:
                found[row] = fits, entry
    return {row: entry for row, (_, entry) in found.items()}


def is_skipped(rows: pd.DataFrame) -> pd.Series[bool]:
    """Whether a row is of a matrix that could not be decomposed."""
    return rows["status"].str.startswith("skipped:")


def _stored(path: Path) -> list[Entry]:
    try:
        return read_entries(path)
    except RankscopeError as error:
        advice = "remove it, and `rankscope analyze` computes it again"
        raise RankscopeError(f"{error.message}: {advice}", path=path, reason="damaged") from error
