"""Documents of text: Python's own documentation, and files of text or JSON lines."""

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

from rankscope.errors import RankscopeError, WrongSettingError

PYTHON_DOCUMENTATION = "pydoc_data.topics"
COMPRESSIONS = ("", ".gz", ".xz", ".zst")
TEXT_FORMATS = tuple(kind + packed for kind in (".txt", ".jsonl") for packed in COMPRESSIONS)
# C4's and Dolma's JSON lines; a plain .json is more often something else.
LINES_NAMED_JSON = tuple(".json" + packed for packed in COMPRESSIONS[1:])


def read_documents(source: str) -> list[str]:
    """Read the documents of a source, in its order; empty ones are left out.

    Parameters
    ----------
    source
        ``pydoc_data.topics`` for the language reference that comes with every Python, one document
        per topic; or a file: ``.txt`` is one document, ``.jsonl`` holds one object per line with
        the document under ``"text"``; either may be compressed as ``.gz``, ``.xz`` or ``.zst``.

    Raises
    ------
    WrongSettingError
        If there is no such file, or its name ends otherwise.
    RankscopeError
        If the file cannot be read or holds no text.
    """
    if not (documents := list(iter_documents(source))):
        raise RankscopeError("holds no text", path=source)
    return documents


def iter_documents(source: str, *, text_key: str = "text") -> Iterator[str]:
    """Yield what `read_documents` returns; a compressed file is unpacked as it is read.

    Parameters
    ----------
    source
        As there, but the source may be without text.
    text_key
        Key of the text in a JSON line.
    """
    yield from (text for text, _ in iter_records(source, text_key=text_key))


def iter_records(
    source: str, *, text_key: str = "text"
) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Yield each document of a source and the object that holds it, one with only the text if none.

    Parameters
    ----------
    source, text_key
        As for `iter_documents`.
    """
    if source == PYTHON_DOCUMENTATION:
        yield from ((text, {text_key: text}) for text in _python_documentation())
        return
    path = Path(source)
    with reading(path):
        is_there = path.exists()
    if not is_there:
        raise WrongSettingError("does not exist", path=path)
    if not path.name.lower().endswith(TEXT_FORMATS + LINES_NAMED_JSON):
        raise WrongSettingError(
            f"is not one of {', '.join(TEXT_FORMATS)}: turn data of other formats into a folder "
            "with `rankscope data prepare`",
            path=path,
        )
    with reading(path), _open_text(path) as file:
        is_lines = not path.name.lower().endswith(TEXT_FORMATS[: len(COMPRESSIONS)])
        records = _iter_jsonl(path, file, text_key) if is_lines else _iter_whole(file, text_key)
        yield from ((text, record) for text, record in records if text)


@contextmanager
def reading(
    path: Path | str, *, what: str = "", errors: type[Exception] = OSError
) -> Iterator[None]:
    """Turn what goes wrong with a file's bytes into one line that names it.

    Parameters
    ----------
    path
        The file.
    what
        What it should hold.
    errors
        Exceptions to catch besides those of damaged files.
    """
    try:
        yield
    except RankscopeError:
        raise
    except (OSError, EOFError, lzma.LZMAError, zlib.error, ValueError, errors) as error:
        reason = getattr(error, "strerror", None) or (str(error).splitlines() or ["damaged"])[0]
        as_what = f" as {what}" if what else ""
        raise RankscopeError(f"cannot be read{as_what}: {reason}", path=path) from None


def _python_documentation() -> Iterator[str]:
    """Yield the topics, each paragraph only where it comes first.

    A fifth of the text is in several topics, so held-out topics would not be unseen text.
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
            text.encode()  # half of a surrogate pair, which JSON can escape, is not text
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise RankscopeError(
                f'line {number} is not an object with a string under "{text_key}"', path=path
            ) from None
        yield text, record


_OPENERS: dict[str, Callable[..., object]] = {
    ".gz": gzip.open,
    ".xz": lzma.open,
    ".zst": _open_zst,
}
