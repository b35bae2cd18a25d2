"""A folder of token ids that is opened, not read: what `rankscope data prepare` writes.

``tokens.bin`` holds the ids, little-endian, the training documents first and the held-out ones
after them; ``documents.npy`` where each document begins, and the end; ``tokenizer.json`` is there
where one is known. ``tokens.json`` describes them and is written last: where it is, the folder is
complete.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankscope.durable import write_file
from rankscope.errors import RankscopeError
from rankscope.training.data.corpus import Corpus
from rankscope.training.data.document_files import reading
from rankscope.training.data.token_files import RAW_TYPES

FORMAT = "rankscope-tokens-1"
SIDECAR, TOKENS, DOCUMENTS, TOKENIZER = (
    "tokens.json",
    "tokens.bin",
    "documents.npy",
    "tokenizer.json",
)


@dataclass(frozen=True)
class Part:
    """How much there is to train on, or to validate on."""

    tokens: int
    documents: int
    bytes: int | None  # of the text as UTF-8; None where the source held ids
    characters: int | None


@dataclass(frozen=True)
class Sidecar:
    """What ``tokens.json`` says."""

    dtype: str  # a key of RAW_TYPES
    vocab_size: int
    end_of_document: int | None
    tokenizer: str | None  # "bytes", "bpe" or "file"; None: unknown
    tokenizer_blake2b: str | None
    training: Part
    validation: Part
    row_tokens: int | None  # where the ids came in rows, all of this length
    validation_fraction: float  # as it was wanted
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


def open_token_folder(folder: Path) -> Corpus:
    """Memory-map a prepared folder; nothing of it is read but the description.

    Raises
    ------
    RankscopeError
        If it is not a prepared folder, is of an unknown format, or a file is missing or has
        another size than was written.
    """
    sidecar = read_sidecar(folder)
    dtype = np.dtype(RAW_TYPES[sidecar.dtype])
    with reading(folder / TOKENS):
        size = (folder / TOKENS).stat().st_size
    if size != sidecar.tokens * dtype.itemsize:
        raise RankscopeError(
            f"holds {size} bytes, but {SIDECAR} says {sidecar.tokens * dtype.itemsize}: "
            "copy it again or prepare the data again",
            path=folder / TOKENS,
        )
    tokens = np.memmap(folder / TOKENS, dtype=dtype, mode="r")
    return Corpus(
        training=tokens[: sidecar.training.tokens],
        validation=tokens[sidecar.training.tokens :],
        vocab_size=sidecar.vocab_size,
        end_of_document=sidecar.end_of_document,
        tokenizer=_read_tokenizer(folder, sidecar),
        row_tokens=sidecar.row_tokens,
        documents=_open_documents(folder, sidecar),
        validation_bytes=sidecar.validation.bytes,
        recorded_digest=sidecar.digest,
    )


def read_sidecar(folder: Path) -> Sidecar:
    """Read what ``tokens.json`` says of a folder, see `open_token_folder`."""
    path = folder / SIDECAR
    if not path.is_file():
        raise RankscopeError(
            f"is a folder without {SIDECAR}, so it is not prepared, or not completely: "
            "prepare one with `rankscope data prepare`",
            path=folder,
        )
    with reading(path):
        stored = json.loads(path.read_bytes())
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        found = stored.get("format") if isinstance(stored, dict) else None
        raise RankscopeError(
            f"has the format {found!r}, but this version of rankscope reads {FORMAT!r}", path=path
        )
    try:
        known = {field.name: stored[field.name] for field in fields(Sidecar)}
        parts = {name: Part(**known[name]) for name in ("training", "validation")}
        sidecar = Sidecar(**(known | parts))
        if sidecar.dtype not in RAW_TYPES or min(sidecar.training.tokens, sidecar.vocab_size) < 1:
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
