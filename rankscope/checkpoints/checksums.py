"""Checksums that files have of their own parts, compared while those parts are read.

Zips, and so the files of ``torch.save``, have one for every storage. To compare it, all of the
storage is read, once per process: what was found sound is not read again for the other tensors.
"""

from __future__ import annotations

import hashlib
import io
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankscope.checkpoints.remote.remote_file import RemoteFile

CHUNK = 2**22  # bytes
MOST = 2**16  # sound parts that are remembered

_sound: set[tuple[int, ...]] = set()
_is_sampling = ContextVar("_is_sampling", default=False)


@dataclass(frozen=True)
class Checksum:
    """The CRC-32 of ``size`` bytes of a file from ``offset`` on."""

    offset: int
    size: int
    crc: int
    fault = (
        "is damaged: its bytes do not match their checksum in the file: copy or download it again"
    )

    @classmethod
    def stated(cls, offset: int, size: int, crc: int) -> Checksum | None:
        """The checksum as a zip states it; None for 0, which torch writes when it computes none.

        One part in 2**32 really has the checksum 0; it is read unchecked.
        """
        return cls(offset, size, crc) if crc else None

    def holds(self, file: io.FileIO, place: int, data: NDArray[np.uint8]) -> bool:
        """Whether the part is as it was written, of which ``data`` was read from ``place`` on.

        Reads the rest of it, unless this process already found this version of the file sound.
        """
        status = os.fstat(file.fileno())
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, self.offset)
        if _is_sampling.get() or not data.size or key in _sound:
            return True
        crc = _crc_of(file, self.offset, place, 0)
        crc = zlib.crc32(data.data, crc)
        crc = _crc_of(file, place + data.size, self.offset + self.size, crc)
        if crc == self.crc:
            _remember(key)
        return crc == self.crc


@dataclass(frozen=True)
class FileDigest:
    """The digest of a whole file, as a manifest lists it."""

    size: int
    blake2b: str
    fault = "is damaged: it is not the file that its manifest lists"

    def holds(self, file: io.FileIO, _place: int, data: NDArray[np.uint8]) -> bool:
        """Whether the file is as it was written; reads all of it, once per process.

        A file elsewhere is not read for this: where it lies, its version changes with its content.
        """
        if isinstance(file, RemoteFile):
            return True
        status = os.fstat(file.fileno())
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, -1)
        if _is_sampling.get() or not data.size or key in _sound:
            return True
        digest = hashlib.blake2b(digest_size=32)
        file.seek(0)
        while read := file.read(CHUNK):
            digest.update(read)
        is_sound = digest.hexdigest() == self.blake2b
        if is_sound:
            _remember(key)
        return is_sound


def _remember(key: tuple[int, ...]) -> None:
    if len(_sound) >= MOST:
        _sound.clear()
    _sound.add(key)


@contextmanager
def sampling() -> Iterator[None]:
    """Read without comparing checksums, for a few numbers that only distinguish tensors."""
    token = _is_sampling.set(True)
    try:
        yield
    finally:
        _is_sampling.reset(token)


def _crc_of(file: io.FileIO, start: int, stop: int, crc: int) -> int:
    """Continue a checksum over bytes ``start:stop``, or up to the end of the file."""
    file.seek(start)
    while start < stop and (read := file.read(min(CHUNK, stop - start))):
        crc = zlib.crc32(read, crc)
        start += len(read)
    return crc
