"""What `rankscope data prepare` is told to read: files, folders of them, datasets by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rankscope.errors import RankscopeError
from rankscope.training.data.document_files import (
    LINES_NAMED_JSON,
    PYTHON_DOCUMENTATION,
    TEXT_FORMATS,
    iter_documents,
)
from rankscope.training.data.held_out import Document
from rankscope.training.data.text_columns import HUB, iter_hub, iter_parquet, iter_saved_dataset
from rankscope.training.data.token_files import iter_token_documents, open_token_file
from rankscope.training.data.token_folder import SIDECAR

TOKEN_FORMATS = (".bin", ".npy")
FORMATS = (*TEXT_FORMATS, *LINES_NAMED_JSON, ".parquet", *TOKEN_FORMATS)


@dataclass(frozen=True)
class Source:
    """One file, folder of a dataset, or dataset by name."""

    name: str
    bytes: int | None  # None for a dataset by name


@dataclass(frozen=True)
class Reading:
    """How sources are read where they do not say it themselves."""

    text_key: str = "text"
    dtype: str | None = None  # of token files without a header
    end_of_document: int | None = None  # in token files


def find_sources(names: Sequence[str]) -> list[Source]:
    """List what the names stand for, the files of a folder in the order of their paths.

    Raises
    ------
    RankscopeError
        If a name stands for nothing that can be read; nothing is opened yet.
    """
    return [source for name in names for source in _iter_found(name)]


def iter_source(source: Source, reading: Reading) -> Iterator[Document]:
    """Yield the documents of a source; empty ones are left out.

    Raises
    ------
    RankscopeError
        If it cannot be read.
    """
    path = Path(source.name)
    if source.name.startswith(HUB):
        yield from iter_hub(source.name, text_key=reading.text_key)
    elif path.is_dir():
        yield from iter_saved_dataset(path, text_key=reading.text_key)
    elif path.suffix.lower() == ".parquet":
        yield from iter_parquet(path, text_key=reading.text_key)
    elif path.suffix.lower() in TOKEN_FORMATS:
        tokens = open_token_file(path, dtype=reading.dtype)
        yield from iter_token_documents(tokens, reading.end_of_document)
    else:
        yield from iter_documents(source.name, text_key=reading.text_key)


def _iter_found(name: str) -> Iterator[Source]:
    path = Path(name)
    if name.startswith(HUB) or name == PYTHON_DOCUMENTATION:
        yield Source(name, None)
    elif name and path.is_dir():
        yield from _iter_folder(path)
    elif not path.exists():
        raise RankscopeError("does not exist", path=name)
    elif not path.name.lower().endswith(FORMATS):
        raise RankscopeError(
            f"is none of {', '.join(FORMATS)}, no folder and no hf:ORG/NAME", path=name
        )
    else:
        yield Source(name, path.stat().st_size)


def _iter_folder(folder: Path) -> Iterator[Source]:
    if (folder / SIDECAR).exists():
        raise RankscopeError("is prepared already: give it to data.source", path=folder)
    if (folder / "dataset_dict.json").exists():
        splits = ", ".join(sorted(str(p) for p in folder.iterdir() if p.is_dir()))
        raise RankscopeError(f"holds several splits: give one or more of {splits}", path=folder)
    if (folder / "state.json").exists() and (folder / "dataset_info.json").exists():
        yield Source(str(folder), sum(p.stat().st_size for p in folder.glob("*.arrow")))
        return
    found = [
        path
        for path in sorted(folder.rglob("*"))
        if path.name.lower().endswith(FORMATS)
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not found:
        raise RankscopeError(f"holds no file of {', '.join(FORMATS)}", path=folder)
    yield from (Source(str(path), path.stat().st_size) for path in found)
