"""Tables of an older version: how their store fills columns that were added later.

Every metric follows from a stored spectrum, so metrics are computed again. The relative size of a
change follows from the spectrum of what changed, if the table has it at the start of the window.
What was not stored stays empty: a matrix's significant bits, the restarts in a window, the cosine
of an update with the one before it, and how sparse the entries are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from rankscope.errors import RankscopeError
from rankscope.results.columns import COLUMNS, WINDOW
from rankscope.results.measure import FULL_RANK, frobenius_norm, measure
from rankscope.results.spectra_store import MATRIX, read_entries, store_path
from rankscope.spectra.spectrum import Spectrum

# What each change is a change of: a component with a row at the start of the window.
CHANGED = {"update": "weight", "cumulative_update": "weight"}
CHANGED |= {"ov_update": "ov", "qk_update": "qk"}
OF_MERGES = ("merge", "merged_total")  # their steps need not be those of checkpoints
OF_CHANGES = (*WINDOW, "signal_to_noise", "relative_size", "relative_size_error")
OF_UPDATES = ("update_cosine", "update_cosine_error", "update_cosine_bias")

Key = tuple[object, ...]


def filled(table: pd.DataFrame, folder: Path) -> pd.DataFrame:
    """A table with all columns; those that an older version lacked come from the store.

    Parameters
    ----------
    table
        With the current columns and types.
    folder
        The spectra store that was written with it.
    """
    stored = _stored(table, folder)
    steps = _steps_of_checkpoints(table)
    rows = [_filled(row, stored, steps) for row in table.to_dict("records")]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def empty_columns(table: pd.DataFrame, added: frozenset[str]) -> list[str]:
    """The added columns that are empty although matrices of this table should have values."""
    without = {
        *(OF_CHANGES if table["component"].isin(FULL_RANK).all() else ()),
        *(() if (table["component"] == "update").any() else OF_UPDATES),
    }
    asked = [name for name in COLUMNS if name in added - without]
    return [name for name in asked if table[name].isna().all()]


def _stored(table: pd.DataFrame, folder: Path) -> dict[Key, Spectrum]:
    """Every stored spectrum by run, step and place; damaged files are skipped.

    With the start of its window, and without one where the store has a single window of the matrix.
    """
    stored: dict[Key, Spectrum] = {}
    windows: dict[Key, set[object]] = {}
    for run, step in table[["run", "step"]].drop_duplicates().itertuples(index=False):
        try:
            entries = read_entries(store_path(folder, str(run), int(step)))
        except RankscopeError:
            continue
        for entry in entries:
            key, since = _key(run, step, entry.place), entry.place.get("since")
            stored[*key, since] = stored[key] = entry.spectrum
            windows.setdefault(key, set()).add(since)
    several = {key for key, own in windows.items() if len(own) > 1}
    return {key: spectrum for key, spectrum in stored.items() if key not in several}


def _key(run: object, step: object, place: Mapping[Any, Any]) -> Key:
    return (run, step, *(None if pd.isna(place[name]) else place[name] for name in MATRIX))


def _steps_of_checkpoints(table: pd.DataFrame) -> dict[object, list[int]]:
    of_checkpoints = table[~table["component"].isin(OF_MERGES)]
    return {
        run: sorted({int(step) for step in rows["step"]})
        for run, rows in of_checkpoints.groupby("run")
    }


def _filled(
    row: Mapping[Any, Any], stored: Mapping[Key, Spectrum], steps: Mapping[object, list[int]]
) -> dict[Any, Any]:
    key = _key(row["run"], row["step"], row)
    if not pd.isna(row["since"]):
        key = (*key, row["since"]) if (*key, row["since"]) in stored else (*key, None)
    spectrum = stored.get(key)
    if spectrum is None:
        return dict(row)
    since: dict[str, int] = {}
    earlier = [step for step in steps.get(row["run"], []) if step < row["step"]]
    if spectrum.before is None and row["component"] in CHANGED and earlier:
        start = earlier[0] if row["component"] == "cumulative_update" else earlier[-1]
        changed = {**row, "component": CHANGED[row["component"]]}
        was = stored.get(_key(row["run"], start, changed))
        if was is not None and was.values.size:
            spectrum, since = replace(spectrum, before=frobenius_norm(was)), {"since": start}
    return {**row, **since, **measure(spectrum, whole=row["component"] in FULL_RANK)}
