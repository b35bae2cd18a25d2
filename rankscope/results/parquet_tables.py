"""Tables as Parquet, column by column, and the size that a Parquet file may have as a table.

Arrow would load pandas to take Python values, which costs more than writing all results. It is
given the memory of numpy arrays instead.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from rankscope.errors import RankscopeError

CELL = 8  # bytes of a number, which is also the least that a text takes
FREE_BYTES = 2**28  # that any table may take, and for each byte of its file:
PACKED = 64  # tables of results take 3, and one of them fifty times over takes 14


def as_parquet(
    records: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    whole: Collection[str],
    text: Collection[str],
) -> bytes:
    """Records as Parquet: integers, text and otherwise floating-point numbers.

    A missing number is null, a missing text is empty.

    Raises
    ------
    OverflowError
        If an integer has more than 64 bits.
    """
    arrays = []
    for name in columns:
        cells = [record.get(name) for record in records]
        make = _whole if name in whole else _text if name in text else _numbers
        arrays.append(make(cells))
    buffer = io.BytesIO()
    pa.parquet.write_table(pa.Table.from_arrays(arrays, names=list(columns)), buffer)
    return buffer.getvalue()


def check_size(path: Path) -> None:
    """Refuse a file whose rows would take far more memory than its bytes can be results for.

    A few bytes of Parquet can repeat a value a billion times. Nothing but the end of the file is
    read.

    Raises
    ------
    RankscopeError
        With the reason ``over-limit``.
    pyarrow.ArrowException
        If it is not Parquet.
    """
    size = path.stat().st_size
    with pa.parquet.ParquetFile(path) as file:
        stated = file.metadata
        groups = [stated.row_group(index) for index in range(stated.num_row_groups)]
        rows = max(stated.num_rows, sum(group.num_rows for group in groups))
        packed = sum(group.total_byte_size for group in groups)
        needed = max(CELL * rows * stated.num_columns, packed)
    if needed > FREE_BYTES + PACKED * size:
        message = (
            f"states {rows} rows of {stated.num_columns} columns, which would take {needed} bytes: "
            f"too many for a table of results in a file of {size}"
        )
        raise RankscopeError(message, path=path, reason="over-limit")


def _whole(cells: list[Any]) -> pa.Array:
    values = np.array([0 if cell is None else cell for cell in cells], np.int64)
    return _numeric(pa.int64(), values, cells)


def _numbers(cells: list[Any]) -> pa.Array:
    values = np.array([0.0 if cell is None else cell for cell in cells], np.float64)
    return _numeric(pa.float64(), values, cells)


def _numeric(kind: pa.DataType, values: np.ndarray[Any, Any], cells: list[Any]) -> pa.Array:
    known = np.packbits([cell is not None for cell in cells], bitorder="little")
    return pa.Array.from_buffers(kind, len(cells), [pa.py_buffer(known), pa.py_buffer(values)])


def _text(cells: list[Any]) -> pa.Array:
    encoded = [b"" if cell is None else str(cell).encode() for cell in cells]
    ends = np.fromiter(accumulate(map(len, encoded), initial=0), np.int64, len(cells) + 1)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(encoded))]
    return pa.Array.from_buffers(pa.large_string(), len(cells), buffers).cast(pa.string())
