"""Where the text comes from: Python's own documentation, or a file of the user's."""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TextIO, cast

from rankscope.errors import RankscopeError

PYTHON_DOCUMENTATION = "pydoc_data.topics"
TEXT_FORMATS = (".txt", ".jsonl", ".txt.gz", ".jsonl.gz", ".txt.xz", ".jsonl.xz")
_OPENERS: dict[str, Callable[..., object]] = {".gz": gzip.open, ".xz": lzma.open}


def read_documents(source: str) -> list[str]:
    """Read the documents of a source, in its order; empty ones are left out.

    Parameters
    ----------
    source
        ``pydoc_data.topics`` for the language reference that every Python brings along, one
        document a topic; or a file: ``.txt`` is one document, ``.jsonl`` holds one object a line
        with the document under ``"text"``; either may be compressed as ``.gz`` or ``.xz``.

    Raises
    ------
    RankscopeError
        If the file cannot be read, has another format or holds no text.
    """
    if source == PYTHON_DOCUMENTATION:
        return list(_python_documentation())
    path = Path(source)
    if not path.name.lower().endswith(TEXT_FORMATS):
        raise RankscopeError(f"is none of {', '.join(TEXT_FORMATS)}, .bin, .npy", path=path)
    try:
        with _open_text(path) as file:
            documents = list(
                _iter_jsonl(path, file) if ".jsonl" in path.suffixes else [file.read()]
            )
    except (OSError, EOFError, lzma.LZMAError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RankscopeError(f"cannot be read: {reason}", path=path) from None
    documents = [text for text in documents if text]
    if not documents:
        raise RankscopeError("holds no text", path=path)
    return documents


def hold_out(documents: Sequence[str], fraction: float) -> tuple[list[str], list[str]]:
    """Split documents into those to train on and those to validate on.

    Whole documents are held out, in the order of a hash of their text until ``fraction`` of all
    characters is reached: the choice depends on no seed and on no order, and copies of a document
    are on the same side. Nothing is held out where there is only one document.
    """
    wanted = fraction * sum(map(len, documents))
    held: set[str] = set()
    size = 0
    for text in sorted(set(documents), key=_digest)[:-1]:
        if size >= wanted:
            break
        held.add(text)
        size += len(text)
    return [t for t in documents if t not in held], [t for t in documents if t in held]


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(errors="surrogatepass")).digest()


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


def _open_text(path: Path) -> TextIO:
    opener = _OPENERS.get(path.suffix.lower(), open)
    return cast(TextIO, opener(path, "rt", encoding="utf-8", newline=""))


def _iter_jsonl(path: Path, lines: TextIO) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            text = json.loads(line)["text"]
        except (ValueError, TypeError, KeyError):
            text = None
        if not isinstance(text, str):
            raise RankscopeError(
                f'line {number} is not an object with a string under "text"', path=path
            )
        yield text
