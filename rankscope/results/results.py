"""A results folder, opened: its tables and the spectra behind them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from rankscope.errors import RankscopeError, RankscopeWarning, WrongSettingError, printable
from rankscope.results.columns import (
    ANALYSIS_RECORD,
    COLUMNS,
    EVALUATION_COLUMNS,
    EVALUATION_FILE,
    EVALUATION_TEXT,
    EVALUATION_WHOLE,
    METRICS_FILE,
    SPECTRA_FOLDER,
    SUBSPACE_COLUMNS,
    SUBSPACE_TEXT,
    SUBSPACE_WHOLE,
    SUBSPACES_FILE,
    TEXT,
    TRAINING_FILE,
    WHOLE,
)
from rankscope.results.older import empty_columns, filled
from rankscope.results.record import read_record
from rankscope.results.spectra_store import MATRIX, Entry, read_entries, store_path

VALUE_COLUMNS = (
    *("run", "step", "layer", "role", "component", "head", "name"),
    *("index", "singular_value", "lower", "upper", "noise_floor"),
)


def table_of(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a DataFrame with the columns and types of every metrics table."""
    return typed(pd.DataFrame(list(rows), columns=list(COLUMNS)))


def typed(table: pd.DataFrame) -> pd.DataFrame:
    """A metrics table with all columns and their types; columns that it lacks are empty."""
    return _with_types(table.reindex(columns=list(COLUMNS)), WHOLE, TEXT)


def typed_evaluation(table: pd.DataFrame) -> pd.DataFrame:
    """A table of an evaluation with its columns and their types."""
    return _with_types(table[list(EVALUATION_COLUMNS)], EVALUATION_WHOLE, EVALUATION_TEXT)


def typed_subspaces(table: pd.DataFrame) -> pd.DataFrame:
    """A table of subspaces with its columns and their types."""
    return _with_types(table[list(SUBSPACE_COLUMNS)], SUBSPACE_WHOLE, SUBSPACE_TEXT)


def _with_types(table: pd.DataFrame, whole: Sequence[str], text: Sequence[str]) -> pd.DataFrame:
    types = {
        name: "Int64" if name in whole else "str" if name in text else "float64" for name in table
    }
    return table.astype(types)


@dataclass(frozen=True)
class Results:
    """A folder that `analyze` or `evaluate` wrote; its tables are read when they are first used.

    Attributes
    ----------
    path
        The folder.

    Examples
    --------
    >>> import rankscope as rs
    >>> results = rs.open_results("results")
    >>> rows = results.metrics.query("run == 'relora' and step == 20 and role == 'q'")
    >>> rows.groupby("component")["numerical_rank"].max().to_dict()  # adapters of rank 2, merged
    {'adapter': 2, 'gradient': 16, 'merge': 2, 'merged_total': 4, 'update': 2, 'weight': 16}
    >>> results.spectra("merge", run="relora", step=20, layer=0, role="q")["index"].tolist()
    [0, 1]
    """

    path: Path

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """One row per matrix and step, with the columns `COLUMNS`; empty if nothing was analysed.

        A table of an older version is completed from its store, with a `RankscopeWarning` that
        names the columns that remain empty.
        """
        path = self.path / METRICS_FILE
        if not path.is_file():
            return self._described(table_of([]))
        written = pd.read_parquet(path)
        added = frozenset(COLUMNS) - frozenset(written.columns)
        table = typed(written)
        if added:
            table = typed(filled(table, self.path / SPECTRA_FOLDER))
            self._say_what_is_empty(empty_columns(table, added))
        return self._described(table)

    def _say_what_is_empty(self, names: Sequence[str]) -> None:
        if not names:
            return
        message = (
            f"{printable(str(self.path))}: an older version wrote this table, which lacks "
            f"{', '.join(names)}, and whose noise floors of products lack the rounding of their "
            "factors: `rankscope analyze` into this folder rewrites it"
        )
        warnings.warn(RankscopeWarning(message), stacklevel=4)

    @cached_property
    def evaluation(self) -> pd.DataFrame:
        """One row per measure of performance and step; empty if nothing was evaluated.

        Columns run, step, task, group, metric, value, ci_low, ci_high, n.
        """
        path = self.path / EVALUATION_FILE
        if not path.is_file():
            return typed_evaluation(pd.DataFrame(columns=list(EVALUATION_COLUMNS)))
        return self._described(typed_evaluation(pd.read_parquet(path)))

    @cached_property
    def subspaces(self) -> pd.DataFrame:
        """How leading singular subspaces moved: one row per comparison and measure.

        Columns run, step, against, layer, role, component, head, expert, name, measure, side, k,
        value, error, noise, null, status. Empty unless the analysis was called with ``subspaces``.
        """
        path = self.path / SUBSPACES_FILE
        if not path.is_file():
            return typed_subspaces(pd.DataFrame(columns=list(SUBSPACE_COLUMNS)))
        return self._described(typed_subspaces(pd.read_parquet(path)))

    @property
    def unit(self) -> str:
        """What the steps of the runs count: ``step``, ``epoch``, ``tokens``, or several of them."""
        runs = read_record(self.path / ANALYSIS_RECORD).get("runs", [])
        return " or ".join(dict.fromkeys(run.get("unit", "step") for run in runs)) or "step"

    @property
    def breaks(self) -> dict[str, int]:
        """The last step at which another model begins, by run name."""
        return dict(read_record(self.path / ANALYSIS_RECORD).get("breaks", {}))

    def _described(self, table: pd.DataFrame) -> pd.DataFrame:
        """The table with ``unit`` and ``breaks`` attached, for the axes and lines of figures."""
        table.attrs |= {"unit": self.unit, "breaks": self.breaks}
        return table

    @cached_property
    def training(self) -> pd.DataFrame:
        """What the runs logged during training: run, step, loss and more; empty without logs."""
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
        """Singular values of the selected matrices, one row per value, with their intervals.

        Parameters
        ----------
        component
            Component of the matrices.
        run, step, layer, role
            Only matrices of this run, step, layer and role.

        Returns
        -------
        Columns run, step, layer, role, component, head, name, index (from 0), singular_value,
        lower, upper, noise_floor. Only of matrices of the table: the store also keeps those of
        earlier calls, whose checkpoints may have changed since.

        Raises
        ------
        WrongSettingError
            If the table has no such component.
        """
        there = self.metrics["component"].unique()
        if len(there) and component not in there:
            listing = ", ".join(there)
            raise WrongSettingError(f"no rows of {component!r} in `component`: it holds {listing}")
        asked = {"run": run, "step": step, "layer": layer, "role": role, "component": component}
        rows = self.metrics
        for column, value in asked.items():
            rows = rows if value is None else rows[rows[column] == value]
        parts = []
        for _, of_step in rows.groupby(["run", "step"], sort=False):
            run_name, at = of_step[["run", "step"]].iloc[0]
            entries = _stored(store_path(self.path / SPECTRA_FOLDER, run_name, at))
            parts += [_values(run_name, at, entry) for entry in _of_rows(of_step, entries)]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=VALUE_COLUMNS)


def _stored(path: Path) -> list[Entry]:
    try:
        return read_entries(path)
    except RankscopeError as error:
        advice = "remove it, and `rankscope analyze` computes it again"
        raise RankscopeError(f"{error.message}: {advice}", path=path, reason="damaged") from error


def _of_rows(rows: pd.DataFrame, entries: Iterable[Entry]) -> list[Entry]:
    """The entries of these rows of one run and step."""
    there = rows.loc[~rows["status"].str.startswith("skipped:"), list(MATRIX)]
    asked = set(there.astype(object).where(there.notna(), None).itertuples(index=False))
    return [entry for entry in entries if tuple(entry.place[key] for key in MATRIX) in asked]


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
    """Open a results folder: of an analysis, an evaluation, or both.

    Raises
    ------
    WrongSettingError
        If there is nothing at ``path``.
    RankscopeError
        If what is there is not a results folder.

    Examples
    --------
    >>> import rankscope as rs
    >>> table = rs.open_results("results").metrics
    >>> sorted(table["component"].unique())
    ['adapter', 'gradient', 'merge', 'merged_total', 'ov', 'update', 'weight']
    """
    path = Path(path)
    if not path.exists():
        raise WrongSettingError("does not exist", path=path)
    files = (METRICS_FILE, EVALUATION_FILE)
    if not any((path / name).is_file() for name in files):
        raise RankscopeError(
            f"holds no {' and no '.join(files)}: give the folder that `rankscope analyze` or "
            "`rankscope evaluate` wrote",
            path=path,
        )
    return Results(path)
