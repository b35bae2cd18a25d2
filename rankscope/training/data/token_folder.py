"""A folder of token ids that is opened without being read: what `rankscope data prepare` writes.

``tokens.bin`` holds the ids, little-endian: first the documents to train on, then those held out.
``documents.npy`` says where each document begins, and where the last one ends. ``tokenizer.json``
is there if the tokenizer is known. ``tokens.json`` describes them all and is written last: a folder
that has it is complete.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from rankscope.durable import write_file
from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.platforms import flush
from rankscope.training.data.document_files import reading
from rankscope.training.data.token_files import ID_TYPES, IdType, Tokens, id_dtype, iter_id_bytes
from rankscope.training.data.tokenizer import TokenizerKind

FORMAT = "rankscope-tokens-1"
SIDECAR, TOKENS, DOCUMENTS, TOKENIZER = (
    "tokens.json",
    "tokens.bin",
    "documents.npy",
    "tokenizer.json",
)
_HELD_OUT = "validation.bin"  # while the folder is written


@dataclass(frozen=True)
class Amount:
    """How much there is to train on, or to validate on."""

    tokens: int
    documents: int
    bytes: int | None  # of the text as UTF-8; None if the source held ids
    characters: int | None


@dataclass(frozen=True)
class Sidecar:
    """The content of ``tokens.json``."""

    dtype: IdType
    vocab_size: int
    end_of_document: int | None
    tokenizer: TokenizerKind | None  # None: unknown
    tokenizer_blake2b: str | None
    training: Amount
    validation: Amount
    row_tokens: int | None  # if the ids came in rows that are all of this length
    validation_fraction: float  # as it was requested
    sources: list[dict[str, Any]]  # name and bytes of each
    digest: str  # as Corpus.digest
    format: str = FORMAT

    @property
    def tokens(self) -> int:
        """Ids in ``tokens.bin``."""
        return self.training.tokens + self.validation.tokens

    @property
    def documents(self) -> int:
        """Documents in ``tokens.bin``."""
        return self.training.documents + self.validation.documents


@dataclass(frozen=True)
class TokenFolder:
    """A prepared folder, its ids memory-mapped."""

    sidecar: Sidecar
    training: Tokens  # (n,)
    validation: Tokens  # (m,)
    documents: NDArray[np.uint64]  # where each begins, those to train on first, and the end
    tokenizer: str | None  # as tokenizer.json


def open_token_folder(folder: Path) -> TokenFolder:
    """Memory-map a prepared folder; only its description is read.

    Raises
    ------
    WrongSettingError
        If it is not a prepared folder.
    RankscopeError
        If its format is unknown, or a file is missing or has another size than was written.
    """
    sidecar = read_sidecar(folder)
    dtype = id_dtype(sidecar.dtype)
    with reading(folder / TOKENS):
        size = (folder / TOKENS).stat().st_size
    if size != sidecar.tokens * dtype.itemsize:
        raise RankscopeError(
            f"holds {size} bytes, but {SIDECAR} says {sidecar.tokens * dtype.itemsize}: "
            "copy it again or prepare the data again",
            path=folder / TOKENS,
        )
    tokens = np.memmap(folder / TOKENS, dtype=dtype, mode="r")
    cut = sidecar.training.tokens
    return TokenFolder(
        sidecar=sidecar,
        training=tokens[:cut],
        validation=tokens[cut:],
        documents=_open_documents(folder, sidecar),
        tokenizer=_read_tokenizer(folder, sidecar),
    )


def read_sidecar(folder: Path) -> Sidecar:
    """Read the description of a prepared folder, see `open_token_folder`."""
    path = folder / SIDECAR
    if not path.is_file():
        raise WrongSettingError(
            f"is a folder without {SIDECAR}, so it is not prepared, or not completely: "
            "prepare one with `rankscope data prepare`",
            path=folder,
        )
    with reading(path):
        stored = json.loads(path.read_bytes())
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        given = stored.get("format") if isinstance(stored, dict) else None
        raise RankscopeError(
            f"has the format {given!r}, but this version of rankscope reads {FORMAT!r}", path=path
        )
    try:
        known = {field.name: stored[field.name] for field in fields(Sidecar)}
        amounts = {name: Amount(**known[name]) for name in ("training", "validation")}
        sidecar = Sidecar(**(known | amounts))
        if sidecar.dtype not in ID_TYPES or min(sidecar.training.tokens, sidecar.vocab_size) < 1:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise RankscopeError("is damaged: prepare the data again", path=path) from None
    return sidecar


def write_sidecar(folder: Path, sidecar: Sidecar) -> None:
    """Write ``tokens.json``, which completes the folder."""
    described = {"format": sidecar.format} | asdict(sidecar)
    write_file(folder / SIDECAR, (json.dumps(described, indent=1) + "\n").encode())


def tokenizer_digest(tokenizer: str) -> str:
    """Hash of a tokenizer.json, as text."""
    return hashlib.blake2b(tokenizer.encode(), digest_size=16).hexdigest()


@contextmanager
def token_writer(folder: Path, *, dtype: IdType, is_text: bool) -> Iterator[TokenWriter]:
    """Yield what writes ``tokens.bin`` and ``documents.npy``; they are complete after the block.

    Held-out documents wait in a file of their own, because both kinds come mixed but are stored
    one after the other. The files may be larger than memory, so they are written here, not by
    `write_file`, into a folder that `new_folder` renames when it is complete.
    """
    with (folder / TOKENS).open("wb") as tokens, (folder / _HELD_OUT).open("w+b") as held_out:
        writer = TokenWriter(tokens, held_out, dtype=dtype, is_text=is_text)
        yield writer
        held_out.seek(0)
        shutil.copyfileobj(held_out, tokens, 1 << 24)
        _flush(tokens)
    (folder / _HELD_OUT).unlink()
    with (folder / DOCUMENTS).open("wb") as documents:
        np.save(documents, writer.starts())
        _flush(documents)


class TokenWriter:
    """Writes the ids of documents as they come, with 8 bytes of memory per document."""

    def __init__(
        self, training: IO[bytes], validation: IO[bytes], *, dtype: IdType, is_text: bool
    ) -> None:
        self._files = {False: training, True: validation}
        self.dtype, self._is_text = dtype, is_text
        self._lengths = {False: array("Q"), True: array("Q")}
        self._bytes = {False: 0, True: 0}
        self._characters = {False: 0, True: 0}

    def add(self, ids: Tokens, *, held_out: bool, text: str | None) -> None:
        """Write the ids of one document, and count the text that they are of."""
        if not len(ids):
            return
        for stored in iter_id_bytes(ids, self.dtype):
            self._files[held_out].write(stored)
        self._lengths[held_out].append(len(ids))
        if text is not None:
            self._bytes[held_out] += len(text.encode())
            self._characters[held_out] += len(text)

    def starts(self) -> NDArray[np.uint64]:
        """Where each document begins, those to train on first, and where the last one ends."""
        lengths = [np.frombuffer(self._lengths[kind], dtype=np.uint64) for kind in (False, True)]
        return np.cumsum(np.concatenate([np.zeros(1, dtype=np.uint64), *lengths]))

    def amount(self, *, held_out: bool) -> Amount:
        """How much was written of one kind."""
        return Amount(
            tokens=sum(self._lengths[held_out]),
            documents=len(self._lengths[held_out]),
            bytes=self._bytes[held_out] if self._is_text else None,
            characters=self._characters[held_out] if self._is_text else None,
        )

    def row_tokens(self) -> int | None:
        """Length of all rows of ids; None if they differ, or for text."""
        lengths = set(self._lengths[False]) | set(self._lengths[True])
        return None if self._is_text or len(lengths) != 1 else lengths.pop()


def _flush(file: IO[bytes]) -> None:
    file.flush()
    flush(file.fileno())


def _open_documents(folder: Path, sidecar: Sidecar) -> NDArray[np.uint64]:
    path = folder / DOCUMENTS
    with reading(path):
        starts: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    if starts.shape != (sidecar.documents + 1,) or starts[-1] != sidecar.tokens:
        raise RankscopeError(
            f"does not fit {SIDECAR}: copy it again or prepare the data again", path=path
        )
    return starts


def _read_tokenizer(folder: Path, sidecar: Sidecar) -> str | None:
    if sidecar.tokenizer_blake2b is None:
        return None
    path = folder / TOKENIZER
    with reading(path):
        tokenizer = path.read_bytes().decode()
    if tokenizer_digest(tokenizer) != sidecar.tokenizer_blake2b:
        raise RankscopeError("is not the tokenizer that the ids were made with", path=path)
    return tokenizer
