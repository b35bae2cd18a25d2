"""Mutations of Parquet tables: columns, their types, values out of range."""

from __future__ import annotations

import io
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.reliability.fuzzing import hostile

TYPES = (pa.string(), pa.float64(), pa.int64(), pa.bool_(), pa.binary(), pa.float32(), pa.null())
VALUES = (
    *(0, -1, 2**62, 1.5, float("nan"), float("inf"), "", "x", "=1", "\x1b", b"\xff", None, []),
)


def mutated(rng: Random, data: bytes) -> bytes:
    """A table with another column, type, value, or number of rows."""
    table = pq.read_table(io.BytesIO(data)).replace_schema_metadata(None)
    for _ in range(rng.choice((1, 1, 3))):
        table = rng.choice(CHANGES)(rng, table)
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def _drop(rng: Random, table: Any) -> Any:
    return table.remove_column(rng.randrange(table.num_columns)) if table.num_columns else table


def _rename(rng: Random, table: Any) -> Any:
    names = list(table.column_names)
    if names:
        new = hostile.name(rng).encode("utf-8", "replace").decode()
        names[rng.randrange(len(names))] = rng.choice((new, rng.choice(names)))
    return table.rename_columns(names)


def _column(rng: Random, table: Any) -> Any:
    """A column of another type, or with other values."""
    if not table.column_names or not table.num_rows:
        return table
    at = rng.randrange(table.num_columns)
    column = table.column(at).combine_chunks()
    values = column.to_pylist()
    values[rng.randrange(len(values))] = rng.choice(VALUES)
    if rng.random() < 0.3:
        values = [rng.choice(VALUES)] * len(values)
    for form in (column.type, rng.choice(TYPES), None):
        try:
            new = pa.array(values, form)
        except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, OverflowError):
            continue
        return table.set_column(at, table.column_names[at], new)
    return table.set_column(at, table.column_names[at], pa.nulls(len(values)))


def _cast(rng: Random, table: Any) -> Any:
    if not table.column_names:
        return table
    at = rng.randrange(table.num_columns)
    try:
        new = table.column(at).cast(rng.choice(TYPES), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return table
    return table.set_column(at, table.column_names[at], new)


def _rows(rng: Random, table: Any) -> Any:
    rows = list(range(table.num_rows)) or [0]
    if not table.num_rows:
        return table
    return rng.choice((table.slice(0, 0), table.take(rng.choices(rows, k=len(rows) + 1))))


CHANGES = (_drop, _rename, _column, _column, _column, _cast, _cast, _rows)
