"""The table: one row a matrix a step, from the store; and the results folder that holds it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from rankscope.analysis.measure import METRICS, measure
from rankscope.errors import RankscopeError
from rankscope.spectra.store import Entry, read_entries, store_path

METRICS_FILE, TRAINING_FILE, SPECTRA_FOLDER = "metrics.parquet", "training.csv", "spectra"
KEY = ("run", "step", "layer", "role", "component", "head", "expert", "name")
COLUMNS = (*KEY, "rows", "cols", "dtype", "status", *METRICS)
WHOLE = ("step", "layer", "head", "expert", "rows", "cols", "numerical_rank", "max_rank")
VALUE_COLUMNS = (
    *("run", "step", "layer", "role", "component", "head", "name"),
    *("index", "singular_value", "lower", "upper", "noise_floor"),
)
TEXT = (
    "run",
    "role",
    "component",
    "name",
    "dtype",
    "status",
    "noise_source",
    "condition_number_status",
    "route",
)


def row_of(run: str, step: int, entry: Entry) -> dict[str, Any]:
    """One row of the table."""
    spectrum = entry.spectrum
    shape = {"rows": spectrum.shape[0], "cols": spectrum.shape[1]}
    what = {"dtype": spectrum.dtype, "status": spectrum.status}
    return {"run": run, "step": step, **entry.place, **shape, **what, **measure(spectrum)}


def table_of(rows: Iterable[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a DataFrame with the columns and types that every table has."""
    return typed(pd.DataFrame(list(rows), columns=list(COLUMNS)))


def typed(table: pd.DataFrame) -> pd.DataFrame:
    """The columns with the types that every table has."""
    types = {
        name: "Int64" if name in WHOLE else "str" if name in TEXT else "float64" for name in COLUMNS
    }
    return table.astype(types)


def step_rows(run: str, step: int, path: Path, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the entries of one step that have these keys, in their order."""
    by_key: dict[str, list[Entry]] = {}
    for entry in read_entries(path):
        by_key.setdefault(entry.key, []).append(entry)
    return [row_of(run, step, entry) for key in keys for entry in by_key.get(key, [])]


@dataclass(frozen=True)
class Results:
    """A folder that `rankscope.analyze` wrote; the tables in it are read when asked for."""

    path: Path

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row a matrix a step; the columns are `COLUMNS`."""
        return typed(pd.read_parquet(self.path / METRICS_FILE))

    @cached_property
    def training(self) -> pd.DataFrame:
        """What the runs logged while training: run, step, loss and others; empty without logs."""
        path = self.path / TRAINING_FILE
        return pd.read_csv(path, dtype={"run": str}) if path.is_file() else pd.DataFrame()

    def spectra(
        self,
        component: str = "weight",
        *,
        run: str | None = None,
        step: int | None = None,
        layer: int | None = None,
        role: str | None = None,
    ) -> pd.DataFrame:
        """Singular values of the matrices asked for, one row each, with their intervals.

        Returns
        -------
        Columns run, step, layer, role, component, head, name, index (from 0), singular_value,
        lower, upper, noise_floor.
        """
        asked = {"run": run, "step": step, "layer": layer, "role": role, "component": component}
        rows = self.metrics
        for column, value in asked.items():
            rows = rows if value is None else rows[rows[column] == value]
        parts = [
            _values(str(name), int(at), entry)
            for name, at in rows[["run", "step"]].drop_duplicates().itertuples(index=False)
            for entry in read_entries(store_path(self.path / SPECTRA_FOLDER, str(name), int(at)))
            if entry.place["component"] == component
            and (layer is None or entry.place["layer"] == layer)
            and (role is None or entry.place["role"] == role)
        ]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=VALUE_COLUMNS)


def _values(run: str, step: int, entry: Entry) -> pd.DataFrame:
    spectrum, place = entry.spectrum, entry.place
    columns = {
        "run": run,
        "step": step,
        **{name: place[name] for name in ("layer", "role", "component", "head", "name")},
        "index": range(spectrum.max_rank),
        "singular_value": spectrum.values,
        "lower": spectrum.lower,
        "upper": spectrum.upper,
        "noise_floor": spectrum.noise_floor,
    }
    return pd.DataFrame(columns).astype({"layer": "Int64", "head": "Int64"})


def open_results(path: str | Path) -> Results:
    """Open a results folder.

    Raises
    ------
    RankscopeError
        If there is none at ``path``.
    """
    path = Path(path)
    if not (path / METRICS_FILE).is_file():
        raise RankscopeError(
            f"holds no {METRICS_FILE}: give the folder that `rankscope analyze` wrote", path=path
        )
    return Results(path)
