"""Rows that are read from the file are those of the whole table, whatever is asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest

import rankscope as rs
from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.results import table_file
from rankscope.results.columns import COLUMNS, KEY, METRICS_FILE, TEXT, WHOLE
from rankscope.results.parquet_tables import ParquetRows
from rankscope.results.results import Results, typed
from rankscope.results.table_file import TableFile
from rankscope.results.typed_columns import Columns


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Two runs of three steps in two row groups, with missing words and numbers."""
    rows = [
        {
            **{"run": run, "step": step, "role": role, "component": component, "layer": layer},
            **{"name": f"{role}.{layer}", "status": "ok", "per": 0.1 * (layer or 0)},
            "window": "cycle" if component == "merge" and layer else None,
            "outliers": None if layer == 0 else 2**60 + 1,
        }
        for run in ("b", "a")
        for step in (0, 10, 20)
        for component in ("weight", "merge")
        for role in ("q", "down")
        for layer in (0, 1, None)
    ]
    with (tmp_path / METRICS_FILE).open("wb") as file:
        written = ParquetRows(file, COLUMNS, whole=WHOLE, text=TEXT)
        for part in (rows[:25], rows[25:]):
            columns = Columns.of(part, COLUMNS, whole=WHOLE, text=TEXT)
            written._write(columns)
        written.close()
    return rs.open_results(tmp_path)


def test_the_whole_table_is_what_pandas_reads(results: Results) -> None:
    read = typed(pd.read_parquet(results.path / METRICS_FILE))
    # pandas takes them through floating-point numbers.
    exact = [pd.NA if layer == 0 else 2**60 + 1 for layer in read["layer"].fillna(-1)]
    expected = read.assign(outliers=pd.array(exact, "Int64"))
    pd.testing.assert_frame_equal(results.metrics, expected)


@pytest.mark.parametrize(
    "where",
    [
        {"component": "merge"},
        {"run": "a", "step": [0, 20], "role": "q"},
        {"layer": 1, "component": ["weight", "merge"]},
        {"run": "no such run"},
        {"role": []},
        {},
    ],
)
def test_rows_are_those_of_the_table(results: Results, where: dict[str, Any]) -> None:
    columns = ["run", "step", "layer", "window", "per", "outliers"]
    found = results.rows(columns, **where)
    assert "metrics" not in vars(results)
    whole = results.metrics
    for name, wanted in where.items():
        values = [wanted] if isinstance(wanted, str | int) else wanted
        whole = whole[[not pd.isna(one) and one in values for one in whole[name]]]
    pd.testing.assert_frame_equal(found, whole[columns].reset_index(drop=True))
    # In memory it is the same.
    pd.testing.assert_frame_equal(results.rows(columns, **where), found)


@pytest.mark.parametrize("where", [{}, {"component": ["merge"]}, {"run": ["b"], "layer": [0]}])
def test_distinct_rows_are_those_of_the_table(results: Results, where: dict[str, Any]) -> None:
    columns = ["run", "layer", "window"]
    found = results.distinct(columns, **where)
    assert "metrics" not in vars(results)
    whole = typed(pd.read_parquet(results.path / METRICS_FILE))
    for name, wanted in where.items():
        whole = whole[whole[name].isin(wanted)]
    pd.testing.assert_frame_equal(found, whole[columns].drop_duplicates(ignore_index=True))
    in_memory = replace(results)
    assert len(in_memory.metrics)
    pd.testing.assert_frame_equal(in_memory.distinct(columns, **where), found)


def test_cells_of_a_table_can_be_changed(results: Results) -> None:
    path = results.path / METRICS_FILE
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(path), path)  # in one piece
    table = results.metrics
    for name in ("per", "layer", "role"):
        table.loc[0, name] = table.loc[1, name]
        assert table.loc[0, name] == table.loc[1, name]


def test_rows_know_the_restarts_of_the_whole_table(results: Results) -> None:
    weights = results.rows(component="weight")
    assert weights.attrs["restarts"] == {"a": [0, 10, 20], "b": [0, 10, 20]}
    assert weights[["per"]].attrs["restarts"] is weights.attrs["restarts"]


@pytest.mark.parametrize("most", [2**62, 10])
def test_rows_of_one_group_are_alike(
    results: Results, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_file, "MOST_CODES", most)
    with TableFile(results.path / METRICS_FILE, whole=WHOLE, text=TEXT) as file:
        groups = file.groups(["run", "layer", "window"])
        each = file.groups(KEY)
    expected = results.metrics.groupby(["run", "layer", "window"], dropna=False).ngroup()
    pairs = set(zip(groups.tolist(), expected, strict=True))
    assert len(pairs) == len({*groups.tolist()}) == expected.nunique()
    assert len(np.unique(each)) == len(each)


def test_an_unknown_column_is_refused(results: Results) -> None:
    with pytest.raises(WrongSettingError, match="no column 'size' for `columns`"):
        results.rows(["size"])


def test_a_table_that_was_replaced_meanwhile_is_refused(results: Results) -> None:
    results.rows(["per"])
    other = results.path / "other"
    other.write_bytes((results.path / METRICS_FILE).read_bytes())
    other.replace(results.path / METRICS_FILE)
    with pytest.raises(RankscopeError, match="was replaced since it was first read"):
        results.rows(["per"])
