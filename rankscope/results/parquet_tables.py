"""Tables as Parquet, column by column, and the size that a Parquet file may have as a table.

Arrow would load pandas to take Python values, which costs more than writing all results. It is
given the memory of numpy arrays instead.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from rankscope.errors import RankscopeError
from rankscope.results.typed_columns import Columns, Numbers, Texts, joined

if TYPE_CHECKING:
    import pandas as pd

GROUP = 2**15  # rows; a group of them is written when it is full
INT32 = np.iinfo(np.int32).max
CELL = 8  # bytes of a number, which is also the least that a text takes
FREE_BYTES = 2**28  # that any table may take, and for each byte of its file:
PACKED = 64  # tables of results take 3, and one of them fifty times over takes 14


class ParquetRows:
    """A Parquet file that rows are added to; not all of them are in memory.

    Its bytes depend on the rows alone, not on the pieces in which they come.

    Parameters
    ----------
    sink
        What the bytes are written to, as an open file.
    names
        The columns: integers, text and otherwise floating-point numbers. A missing number is null,
        a missing text is empty.
    """

    def __init__(
        self, sink: Any, names: Sequence[str], *, whole: Collection[str], text: Collection[str]
    ) -> None:
        kinds = {
            name: pa.int64() if name in whole else pa.string() if name in text else pa.float64()
            for name in names
        }
        self._schema = pa.schema(kinds.items())
        # Hardly two floating-point numbers are the same: a dictionary of them is larger and slow.
        repeated = [name for name in names if name in whole or name in text]
        self._writer = pa.parquet.ParquetWriter(sink, self._schema, use_dictionary=repeated)
        self._waiting: list[Columns] = []
        self._count = 0  # of the rows that wait
        self._is_empty = True

    def add(self, rows: Columns) -> None:
        """Add rows; they are written in groups of `GROUP`."""
        self._waiting.append(rows)
        self._count += rows.count
        while self._count >= GROUP:
            whole = joined(self._waiting)
            self._write(whole.part(0, GROUP))
            self._waiting = [whole.part(GROUP, whole.count)]
            self._count -= GROUP

    def close(self) -> None:
        """Write what is left, and the end of the file."""
        rest = joined(self._waiting) if self._waiting else None
        if rest is not None and rest.count:
            self._write(rest)
        elif self._is_empty:
            self._writer.write_table(self._schema.empty_table())
        self._writer.close()

    def _write(self, rows: Columns) -> None:
        words = [b"" if word is None else word.encode() for word in rows.words]
        arrays = [_array(rows.column(name), words) for name in self._schema.names]
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._is_empty = False


def as_parquet(
    records: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    *,
    whole: Collection[str],
    text: Collection[str],
) -> bytes:
    """Records as Parquet, as `ParquetRows` writes them.

    Raises
    ------
    OverflowError
        If an integer has more than 64 bits.
    """
    buffer = io.BytesIO()
    rows = ParquetRows(buffer, columns, whole=whole, text=text)
    rows.add(Columns.of(records, columns, whole=whole, text=text))
    rows.close()
    return buffer.getvalue()


def frame_as_parquet(table: pd.DataFrame) -> bytes:
    """A data frame as Parquet, each column in its own type."""
    buffer = io.BytesIO()
    table.to_parquet(buffer, index=False)
    return buffer.getvalue()


def check_size(path: Path) -> None:
    """Refuse a file that states far more rows than results of its size can have.

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


def _array(column: Numbers | Texts, words: Sequence[bytes]) -> pa.Array:
    if isinstance(column, Numbers):
        return _numeric(column)
    lengths = np.array([len(word) for word in words], np.int64)[column.codes]
    ends = np.concatenate(([0], np.cumsum(lengths)))
    content = pa.py_buffer(b"".join([words[code] for code in column.codes.tolist()]))
    if ends[-1] > INT32:  # no writer of this file makes such names
        buffers = [None, pa.py_buffer(ends), content]
        return pa.Array.from_buffers(pa.large_string(), len(lengths), buffers).cast(pa.string())
    # Made as it is written: a cast would load all of Arrow's functions.
    buffers = [None, pa.py_buffer(ends.astype(np.int32)), content]
    return pa.Array.from_buffers(pa.string(), len(lengths), buffers)


def _numeric(cells: Numbers) -> pa.Array:
    kind = pa.int64() if cells.values.dtype.kind == "i" else pa.float64()
    known = np.packbits(cells.known, bitorder="little")
    values = np.ascontiguousarray(cells.values)
    buffers = [pa.py_buffer(known), pa.py_buffer(values)]
    return pa.Array.from_buffers(kind, len(values), buffers)
