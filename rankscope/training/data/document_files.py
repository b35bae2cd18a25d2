"""Where the text comes from: Python's own documentation, or files of the user's."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO, cast

from rankscope.errors import RankscopeError

PYTHON_DOCUMENTATION = "pydoc_data.topics"
COMPRESSIONS = ("", ".gz", ".xz", ".zst")
TEXT_FORMATS = tuple(kind + packed for kind in (".txt", ".jsonl") for packed in COMPRESSIONS)
# C4's and Dolma's lines of JSON; a plain .json is more often something else.
LINES_NAMED_JSON = tuple(".json" + packed for packed in COMPRESSIONS[1:])


def read_documents(source: str) -> list[str]:
    """Read the documents of a source, in its order; empty ones are left out.

    Parameters
    ----------
    source
        ``pydoc_data.topics`` for the language reference that every Python brings along, one
        document a topic; or a file: ``.txt`` is one document, ``.jsonl`` holds one object a line
        with the document under ``"text"``; either may be compressed as ``.gz``, ``.xz`` or
        ``.zst``.

    Raises
    ------
    RankscopeError
        If the file cannot be read, has another format or holds no text.
    """
    if not (documents := list(iter_documents(source))):
        raise RankscopeError("holds no text", path=source)
    return documents


def iter_documents(source: str, *, text_key: str = "text") -> Iterator[str]:
    """Yield what `read_documents` returns; a compressed file is unpacked as it is read.

    Parameters
    ----------
    source
        As there; the source may hold no text.
    text_key
        Where the text stands in a line of JSON.
    """
    yield from (text for text, _ in iter_records(source, text_key=text_key))


def iter_records(
    source: str, *, text_key: str = "text"
) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield each document of a source with the object that it stands in, by itself where in none.

    Parameters
    ----------
    source, text_key
        As for `iter_documents`.
    """
    if source == PYTHON_DOCUMENTATION:
        yield from ((text, {text_key: text}) for text in _python_documentation())
        return
    path = Path(source)
    if not path.exists():
        raise RankscopeError(
            "does not exist: give --data a text, token ids or a folder of `rankscope data prepare`",
            path=path,
        )
    if not path.name.lower().endswith(TEXT_FORMATS + LINES_NAMED_JSON):
        formats = ", ".join((*TEXT_FORMATS, ".bin", ".npy"))
        raise RankscopeError(f"is none of {formats}, nor a prepared folder", path=path)
    with reading(path), _open_text(path) as file:
        is_lines = not path.name.lower().endswith(TEXT_FORMATS[: len(COMPRESSIONS)])
        records = _iter_jsonl(path, file, text_key) if is_lines else _iter_whole(file, text_key)
        yield from ((text, record) for text, record in records if text)


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Turn what goes wrong with a file's bytes into one line that names it."""
    try:
        yield
    except (OSError, EOFError, lzma.LZMAError, zlib.error, ValueError) as error:
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or ["damaged"])[0]
        raise RankscopeError(f"cannot be read: {reason}", path=path) from None


def _python_documentation() -> Iterator[str]:
    """Yield the topics, each paragraph only where it stands first.

    A fifth of the text stands in several topics; held-out topics would not be unseen text.
    """
    from pydoc_data.topics import topics

    seen: set[str] = set()
    for text in topics.values():
        paragraphs = [p for p in text.split("\n\n") if p not in seen]
        seen.update(paragraphs)
        if paragraphs:
            yield "\n\n".join(paragraphs)


@contextmanager
def _open_text(path: Path) -> Iterator[TextIO]:
    opener = _OPENERS.get(path.suffix.lower(), open)
    with cast(io.BufferedReader, opener(path, "rb")) as unpacked:
        yield io.TextIOWrapper(unpacked, encoding="utf-8", newline="")


def _open_zst(path: Path, mode: str) -> object:
    """Open with pyarrow, which unlike zstandard notices a file that was cut short."""
    import pyarrow as pa

    return pa.input_stream(str(path), compression="zstd")


def _iter_whole(file: TextIO, text_key: str) -> Iterator[tuple[str, dict[str, object]]]:
    text = file.read()
    yield text, {text_key: text}


def _iter_jsonl(
    path: Path, lines: TextIO, text_key: str
) -> Iterator[tuple[str, dict[str, object]]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            text = record[text_key]
            text.encode()  # an escaped half of a surrogate pair is no text
        except (ValueError, TypeError, KeyError, AttributeError):
            raise RankscopeError(
                f'line {number} is not an object with a string under "{text_key}"', path=path
            ) from None
        yield text, record


_OPENERS: dict[str, Callable[..., object]] = {
    ".gz": gzip.open,
    ".xz": lzma.open,
    ".zst": _open_zst,
}
