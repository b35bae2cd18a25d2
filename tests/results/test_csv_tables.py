"""CSV that a spreadsheet may open, and Parquet that holds what the rows hold."""

from __future__ import annotations

import csv
import io
import math

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rankscope.results.csv_tables import as_csv, frame_as_csv, original, quoted
from rankscope.results.parquet_tables import as_parquet

NAMES = ("=1+1", "+1", "-1", "@SUM(A1)", "\tq", "\rq", "'=1+1", "''@q", "'q", "q", "a\r\nb", 'a",b')


def read_back(content: bytes) -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode(), newline="")))


@pytest.mark.parametrize("name", NAMES)
def test_no_text_is_a_formula_and_each_comes_back(name: str) -> None:
    ((heading,), (cell,)) = read_back(as_csv([{name: name}], [name]))
    assert heading == cell and not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert original(cell) == name
    (found,) = pd.read_csv(io.BytesIO(as_csv([{"a": name}], ["a"])), dtype=str)["a"]
    assert original(found) == name


@given(st.text())
def test_every_text_comes_back(name: str) -> None:
    assert original(quoted(name)) == name


def test_numbers_stay_numbers_and_none_is_empty() -> None:
    rows = [{"a": -1.5, "b": -3}, {"a": -math.inf, "b": None}]
    assert as_csv(rows, ["a", "b"]) == b"a,b\n-1.5,-3\n-inf,\n"
    assert frame_as_csv(pd.DataFrame([*rows[:1], {"a": math.nan}])) == b"a,b\n-1.5,-3.0\n,\n"


def test_half_a_character_is_an_escape() -> None:
    assert as_csv([{"a": "\ud800"}], ["a"]) == b"a\n\\ud800\n"


def test_parquet_holds_every_value_as_it_is() -> None:
    rows = [
        {"name": "=1+1\r", "n": 2**53 + 1, "x": 0.1},
        {"name": None, "n": None, "x": None},
        {"name": "−é", "n": -1, "x": math.inf},
        {"name": "", "n": 0, "x": 5e-324},
    ]
    content = as_parquet(rows, ["name", "n", "x", "none"], whole=["n"], text=["name"])
    table = pyarrow.parquet.read_table(io.BytesIO(content))
    assert table.column_names == ["name", "n", "x", "none"]
    assert [str(field.type) for field in table.schema] == ["string", "int64", "double", "double"]
    assert table.column("name").to_pylist() == ["=1+1\r", "", "−é", ""]
    assert table.column("n").to_pylist() == [2**53 + 1, None, -1, 0]
    assert table.column("x").to_pylist() == [0.1, None, math.inf, 5e-324]
    assert table.column("none").null_count == 4


def test_not_a_number_is_not_null_and_huge_integers_are_refused() -> None:
    content = as_parquet([{"x": math.nan}], ["x"], whole=[], text=[])
    (found,) = pyarrow.parquet.read_table(io.BytesIO(content)).column("x").to_pylist()
    assert np.isnan(found)
    with pytest.raises(OverflowError):
        as_parquet([{"n": 10**20}], ["n"], whole=["n"], text=[])
