"""Typed columns, and Parquet that is written in pieces, hold the rows that they were made of."""

from __future__ import annotations

import io
from typing import Any

import pandas as pd
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankscope.results import parquet_tables
from rankscope.results.parquet_tables import ParquetRows, as_parquet
from rankscope.results.typed_columns import Columns, joined, packed, unpacked

NAMES, WHOLE, TEXT = ("name", "step", "per"), ("step",), ("name",)
ROW = st.fixed_dictionaries(
    {
        "name": st.none() | st.text(max_size=4),
        "step": st.none() | st.integers(-(2**63), 2**63 - 1),
        "per": st.none() | st.floats(allow_nan=False),
    }
)
ROWS = st.lists(ROW, max_size=20)


def columns_of(rows: list[dict[str, Any]]) -> Columns:
    return Columns.of(rows, NAMES, whole=WHOLE, text=TEXT)


@settings(max_examples=40, deadline=None)
@given(ROWS)
def test_packed_columns_are_the_rows_again(rows: list[dict[str, Any]]) -> None:
    again = unpacked(packed(columns_of(rows)))
    assert list(again.rows()) == rows and again.count == len(rows)


@settings(max_examples=40, deadline=None)
@given(ROWS, ROWS, st.integers(0, 20))
def test_parts_are_cut_and_joined_as_lists_are(
    first: list[dict[str, Any]], second: list[dict[str, Any]], at: int
) -> None:
    whole = joined([columns_of(first), columns_of(second)])
    assert list(whole.rows()) == first + second
    at = min(at, whole.count)
    assert list(whole.part(at, whole.count).rows()) == (first + second)[at:]


@pytest.mark.parametrize("size", [1, 3, 7, 50])
def test_bytes_of_parquet_do_not_depend_on_the_pieces(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_tables, "GROUP", 10)
    rows = [{"name": f"m{n % 4}", "step": n, "per": n / 3 if n % 5 else None} for n in range(50)]
    sink = io.BytesIO()
    table = ParquetRows(sink, NAMES, whole=WHOLE, text=TEXT)
    for start in range(0, len(rows), size):
        table.add(columns_of(rows[start : start + size]))
    table.close()
    assert sink.getvalue() == as_parquet(rows, NAMES, whole=WHOLE, text=TEXT)
    assert pyarrow.parquet.ParquetFile(sink).metadata.num_row_groups == 5
    read = pd.read_parquet(sink)
    assert read.astype(object).where(read.notna(), None).to_dict("records") == rows


def test_a_table_without_rows_has_its_columns() -> None:
    read = pd.read_parquet(io.BytesIO(as_parquet([], NAMES, whole=WHOLE, text=TEXT)))
    assert list(read) == list(NAMES) and not len(read)
