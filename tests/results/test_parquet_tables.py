"""A table of results takes about as much memory as its file is large, whatever the file states."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from rankscope.errors import RankscopeError
from rankscope.results import parquet_tables
from rankscope.results.columns import COLUMNS, METRICS_FILE
from rankscope.results.parquet_tables import check_size
from rankscope.results.results import open_results
from rankscope.watching.kept_rows import iter_table


def repeated(path: Path, rows: int, columns: int) -> Path:
    """One number, written in a few bytes as often as this."""
    one = pa.array(np.ones(rows)).dictionary_encode()
    pa.parquet.write_table(pa.table(dict.fromkeys([*COLUMNS][:columns], one)), path)
    return path


def test_a_small_file_of_many_rows_is_refused_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = repeated(tmp_path / METRICS_FILE, 1_000_000, 4)
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(parquet_tables, "FREE_BYTES", 2**20)
    before = pa.total_allocated_bytes()
    with pytest.raises(RankscopeError, match="states 1000000 rows of 4 columns") as caught:
        _ = open_results(tmp_path).metrics
    assert caught.value.reason == "over-limit" and caught.value.path == str(path)
    assert pa.total_allocated_bytes() - before < 2**20
    with pytest.raises(RankscopeError, match="states 1000000 rows of 4 columns"):
        list(iter_table(tmp_path))


def test_the_limit_counts_the_bytes_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = repeated(tmp_path / "table.parquet", 2000, 3)
    free = 8 * 2000 * 3 - parquet_tables.PACKED * path.stat().st_size
    monkeypatch.setattr(parquet_tables, "FREE_BYTES", free)
    check_size(path)
    monkeypatch.setattr(parquet_tables, "FREE_BYTES", free - 1)
    with pytest.raises(RankscopeError, match="too many for a table of results"):
        check_size(path)
