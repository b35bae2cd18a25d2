"""Writes the ids of a corpus as they come, however many there are.

Documents to train on and to validate on come mixed, but are stored one kind after the other: the
held-out ones wait in a file of their own.
"""

from __future__ import annotations

import os
import shutil
from array import array
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np

from rankscope.training.data.corpus import Tokens
from rankscope.training.data.held_out import Document
from rankscope.training.data.token_files import RAW_TYPES
from rankscope.training.data.token_folder import DOCUMENTS, TOKENS, Part

_WAITING = "validation.bin"
_AT_ONCE = 1 << 22  # ids


class TokenWriter:
    """Writes ``tokens.bin`` and ``documents.npy`` of a folder; 8 bytes of memory a document."""

    def __init__(self, folder: Path, *, dtype: str, is_text: bool) -> None:
        self.dtype, self._folder, self._is_text = dtype, folder, is_text
        self._lengths = {False: array("Q"), True: array("Q")}
        self._bytes = {False: 0, True: 0}
        self._characters = {False: 0, True: 0}
        self._open = ExitStack()

    def __enter__(self) -> TokenWriter:
        with ExitStack() as opened:
            self._files = {
                held_out: opened.enter_context((self._folder / name).open("wb"))
                for held_out, name in ((False, TOKENS), (True, _WAITING))
            }
            self._open = opened.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def add(self, ids: Tokens, *, held_out: bool, document: Document) -> None:
        """Write the ids of one document, which was a text or those ids."""
        if not len(ids):
            return
        for start in range(0, len(ids), _AT_ONCE):
            part = ids[start : start + _AT_ONCE]
            self._files[held_out].write(part.astype(RAW_TYPES[self.dtype]).tobytes())
        self._lengths[held_out].append(len(ids))
        if isinstance(document, str):
            self._bytes[held_out] += len(document.encode())
            self._characters[held_out] += len(document)

    def finish(self) -> None:
        """Join the two kinds and flush everything to the disk."""
        self._files[True].close()
        with (self._folder / _WAITING).open("rb") as waiting:
            shutil.copyfileobj(waiting, self._files[False], 1 << 24)
        (self._folder / _WAITING).unlink()
        lengths = np.concatenate(
            [np.array([0], dtype=np.uint64)]
            + [np.frombuffer(self._lengths[kind], dtype=np.uint64) for kind in (False, True)]
        )
        with (self._folder / DOCUMENTS).open("wb") as documents:
            np.save(documents, np.cumsum(lengths))
            for file in (self._files[False], documents):
                file.flush()
                os.fsync(file.fileno())

    def part(self, *, held_out: bool) -> Part:
        """Say how much was written of one kind."""
        return Part(
            tokens=sum(self._lengths[held_out]),
            documents=len(self._lengths[held_out]),
            bytes=self._bytes[held_out] if self._is_text else None,
            characters=self._characters[held_out] if self._is_text else None,
        )

    def row_tokens(self) -> int | None:
        """Return the length of all rows of ids; None where there are none or they differ."""
        lengths = set(self._lengths[False]) | set(self._lengths[True])
        return None if self._is_text or len(lengths) != 1 else lengths.pop()
