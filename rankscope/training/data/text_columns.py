"""Documents in a column of a table: parquet, and datasets of Hugging Face on disk or by name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from rankscope.errors import RankscopeError
from rankscope.training.data.document_files import reading
from rankscope.training.data.held_out import Document

IDS = "input_ids"
HUB = "hf:"
_ROWS = 1000  # at once


def iter_parquet(path: Path, *, text_key: str) -> Iterator[Document]:
    """Yield the texts of column ``text_key`` or, where there is none, the rows of ``input_ids``."""
    import pyarrow.parquet as pq

    with reading(path), pq.ParquetFile(path) as file:
        column = _column(file.schema_arrow, text_key, path)
        batches = file.iter_batches(batch_size=_ROWS, columns=[column])
        yield from _iter_cells(batches, column, path)


def iter_saved_dataset(folder: Path, *, text_key: str) -> Iterator[Document]:
    """Yield the documents of a folder that ``datasets.Dataset.save_to_disk`` wrote."""
    import pyarrow as pa

    with reading(folder):
        state = json.loads((folder / "state.json").read_bytes())
        if state.get("_indices_data_files"):
            raise RankscopeError(
                "selects rows by an index: save flatten_indices() of it instead", path=folder
            )
        names = [entry["filename"] for entry in state["_data_files"]]
    for path in (folder / name for name in names):
        with reading(path), pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as batches:
            column = _column(batches.schema, text_key, path)
            yield from _iter_cells(batches, column, path)


def iter_hub(name: str, *, text_key: str) -> Iterator[Document]:
    """Yield the documents of ``hf:ORG/NAME[:config][:split]``; the split is train by default."""
    try:
        datasets = import_module("datasets")
    except ImportError:
        raise RankscopeError(
            'datasets of Hugging Face are read with datasets: pip install "rankscope[datasets]"',
            path=name,
        ) from None
    repository, _, rest = name.removeprefix(HUB).partition(":")
    config, _, split = rest.partition(":")
    with reading(name):
        dataset = datasets.load_dataset(repository, config or None, split=split or "train")
        tables = dataset.with_format("arrow").iter(batch_size=_ROWS)
        column = _column(dataset.features.arrow_schema, text_key, name)
        yield from _iter_cells((b for table in tables for b in table.to_batches()), column, name)


def _column(schema: Any, text_key: str, path: Path | str) -> str:
    import pyarrow.types as types

    if text_key in schema.names:
        kind = schema.field(text_key).type
        if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
            return text_key
        raise RankscopeError(f"has a column {text_key!r} of {kind}, which is not text", path=path)
    if IDS in schema.names:
        kind = schema.field(IDS).type
        is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        if is_list and types.is_integer(kind.value_type):
            return IDS
        raise RankscopeError(
            f"has a column {IDS!r} of {kind}, which are no lists of token ids", path=path
        )
    raise RankscopeError(
        f"has neither a column {text_key!r} nor {IDS!r}, but {', '.join(schema.names)}: "
        "name the one with the text, --text-key",
        path=path,
    )


def _iter_cells(batches: Iterable[Any], column: str, path: Path | str) -> Iterator[Document]:
    for batch in batches:
        cells = batch.column(batch.schema.get_field_index(column))
        if column == IDS:
            yield from _iter_rows(cells, path)
        else:
            yield from filter(None, cells.to_pylist())


def _iter_rows(cells: Any, path: Path | str) -> Iterator[Document]:
    import pyarrow.compute as pc

    ids = cells.flatten()
    if len(ids) and (ids.null_count or pc.min(ids).as_py() < 0 or pc.max(ids).as_py() >= 1 << 32):
        raise RankscopeError(f"holds rows of {IDS!r} that are no token ids", path=path)
    lengths = pc.list_value_length(cells).fill_null(0).to_numpy(zero_copy_only=False)
    rows = np.split(ids.to_numpy(zero_copy_only=False).astype(np.uint32), np.cumsum(lengths)[:-1])
    yield from (row for row in rows if len(row))
