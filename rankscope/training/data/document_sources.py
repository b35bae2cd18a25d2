"""What `rankscope data prepare` reads: files of text or ids, tables, and folders of them.

Tables are parquet files, folders of ``datasets.Dataset.save_to_disk`` and datasets of the Hugging
Face Hub by name. All three are read with the library datasets, an extra of this package.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from glob import escape
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.training.data.document_files import (
    LINES_NAMED_JSON,
    PYTHON_DOCUMENTATION,
    TEXT_FORMATS,
    iter_documents,
    reading,
)
from rankscope.training.data.prepare_settings import PrepareSettings
from rankscope.training.data.token_files import Tokens, iter_token_documents, open_token_file
from rankscope.training.data.token_folder import SIDECAR

Content = str | Tokens  # a document: its text, or its ids

HUB, PARQUET, IDS = "hf:", ".parquet", "input_ids"
TOKEN_FORMATS = (".bin", ".npy")
FORMATS = (*TEXT_FORMATS, *LINES_NAMED_JSON, PARQUET, *TOKEN_FORMATS)
_ROWS = 1000  # at once


@dataclass(frozen=True)
class Source:
    """One file, folder of a dataset, or dataset by name."""

    name: str
    bytes: int | None  # None for a dataset by name


def find_sources(names: Sequence[str]) -> list[Source]:
    """List the sources that names stand for, the files of a folder in the order of their paths.

    Raises
    ------
    WrongSettingError
        If a name stands for nothing that can be prepared; no source is opened yet.
    """
    sources = list[Source]()
    for name in names:
        with reading(name):
            sources += _iter_sources(name)
    return sources


def iter_source(
    source: Source, settings: PrepareSettings, *, end_of_document: int | None
) -> Iterator[Content]:
    """Yield the documents of a source; empty ones are left out.

    Parameters
    ----------
    source
        The source.
    settings
        Where the text is, and how ids are stored, in sources that do not say it themselves.
    end_of_document
        Id that ends a document in a token file; None for a file that is one document.

    Raises
    ------
    RankscopeError
        If the source cannot be read.
    """
    path = Path(source.name)
    kind = path.suffix.lower()
    if source.name.startswith(HUB) or path.is_dir() or kind == PARQUET:
        yield from _iter_table(source.name, settings.text_key)
    elif kind in TOKEN_FORMATS:
        tokens = open_token_file(path, dtype=settings.dtype)
        yield from iter_token_documents(tokens, end_of_document)
    else:
        yield from iter_documents(source.name, text_key=settings.text_key)


def _iter_sources(name: str) -> Iterator[Source]:
    path = Path(name)
    if name.startswith(HUB) or name == PYTHON_DOCUMENTATION:
        yield Source(name, None)
    elif name and path.is_dir():
        yield from _iter_folder(path)
    elif not path.exists():
        raise WrongSettingError("does not exist", path=name)
    elif not path.name.lower().endswith(FORMATS):
        raise WrongSettingError(
            f"is neither a folder nor hf:ORG/NAME nor one of {', '.join(FORMATS)}", path=name
        )
    else:
        yield Source(name, path.stat().st_size)


def _iter_folder(folder: Path) -> Iterator[Source]:
    if (folder / SIDECAR).exists():
        raise WrongSettingError("is already prepared: train on it as `data.source`", path=folder)
    if (folder / "dataset_dict.json").exists():
        splits = ", ".join(sorted(str(p) for p in folder.iterdir() if p.is_dir()))
        raise WrongSettingError(f"holds several splits: give one or more of {splits}", path=folder)
    if (folder / "state.json").exists() and (folder / "dataset_info.json").exists():
        yield Source(str(folder), sum(p.stat().st_size for p in folder.glob("*.arrow")))
        return
    paths = [
        path
        for path in sorted(folder.rglob("*"))
        if path.name.lower().endswith(FORMATS)
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not paths:
        raise WrongSettingError(f"holds no file of {', '.join(FORMATS)}", path=folder)
    yield from (Source(str(path), path.stat().st_size) for path in paths)


def _iter_table(name: str, text_key: str) -> Iterator[Content]:
    """Yield the texts of a column or, if none is there or asked for, the rows of ``input_ids``."""
    with reading(name, errors=Exception):  # datasets has many authors, and errors of all kinds
        dataset = _open_table(name)
        column = _column(dataset.features.arrow_schema, text_key, name)
        tables = dataset.select_columns([column]).with_format("arrow").iter(batch_size=_ROWS)
        for batch in (batch for table in tables for batch in table.to_batches()):
            cells = batch.column(0)
            yield from _iter_rows(cells, name) if column == IDS else filter(None, cells.to_pylist())


def _open_table(name: str) -> Any:
    """Open a parquet file, a saved dataset, or ``hf:ORG/NAME[:config][:split]``."""
    try:
        datasets = import_module("datasets")
    except ImportError:
        raise RankscopeError(
            'parquet files and datasets need datasets: pip install "rankscope[datasets]"', path=name
        ) from None
    with _without_log_lines():
        if name.startswith(HUB):
            repository, _, rest = name.removeprefix(HUB).partition(":")
            config, _, split = rest.partition(":")
            return datasets.load_dataset(repository, config or None, split=split or "train")
        if Path(name).is_dir():
            return datasets.load_from_disk(name)
        # Streamed, because otherwise all of it would be copied into the cache first.
        return datasets.load_dataset(
            "parquet", data_files=escape(name), split="train", streaming=True
        )


@contextmanager
def _without_log_lines() -> Iterator[None]:
    """Keep datasets from logging what it raises as well."""
    logger = logging.getLogger("datasets")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _column(schema: Any, text_key: str, name: str) -> str:
    import pyarrow.types as types

    if text_key in schema.names:
        kind = schema.field(text_key).type
        if types.is_string(kind) or types.is_large_string(kind):
            return text_key
        raise RankscopeError(f"has a column {text_key!r} of {kind}, which is not text", path=name)
    if IDS in schema.names and text_key == PrepareSettings.text_key:
        kind = schema.field(IDS).type
        is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
        if is_list and types.is_integer(kind.value_type):
            return IDS
        raise RankscopeError(f"has a column {IDS!r} of {kind}, not of lists of ids", path=name)
    raise WrongSettingError(
        f"has no column {text_key!r}, but {', '.join(schema.names)}: name the one with the text as "
        "`text_key`",
        path=name,
    )


def _iter_rows(cells: Any, name: str) -> Iterable[Tokens]:
    import pyarrow.compute as pc

    ids = cells.flatten()
    if len(ids) and (ids.null_count or pc.min(ids).as_py() < 0 or pc.max(ids).as_py() >= 1 << 32):
        raise RankscopeError(f"has rows of {IDS!r} that are not token ids", path=name)
    lengths = pc.list_value_length(cells).fill_null(0).to_numpy(zero_copy_only=False)
    rows = np.split(ids.to_numpy(zero_copy_only=False).astype(np.uint32), np.cumsum(lengths)[:-1])
    return (row for row in rows if len(row))
