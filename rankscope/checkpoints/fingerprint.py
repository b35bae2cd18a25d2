"""Fingerprints of files, by which different ones are never taken for the same."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

from rankscope.checkpoints.tensors import open_regular

SAMPLES, SAMPLE_BYTES = 32, 4096

State = tuple[int, int]  # size, and time of the last change


def state_of(path: str | Path) -> State | None:
    """Size and time of the last change of a file; None if it is not there.

    Shows whether the file was written to, unless its time was set back and its size stayed.
    """
    try:
        status = Path(path).stat()
    except (OSError, ValueError):  # a name in a file may be too long, or no name at all
        return None
    return status.st_size, status.st_mtime_ns


def fingerprint(path: str | Path) -> str:
    """Digest of a file's size, modification time, beginning, end and samples between.

    Weights in training change everywhere, so samples distinguish two checkpoints even where size
    and time were copied along; the time shows that a single tensor was edited. Reads 128 KiB.

    Raises
    ------
    RankscopeError
        If the file cannot be opened.
    """
    with open_regular(path) as (file, _):
        status = os.fstat(file.fileno())
    return _sampled(str(path), status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=4096)
def _sampled(path: str, size: int, modified: int, inode: int) -> str:
    digest = hashlib.blake2b(f"{size} {modified}".encode(), digest_size=16)
    last = max(size - SAMPLE_BYTES, 0)
    with open_regular(path) as (file, _):
        for place in sorted({last * i // (SAMPLES - 1) for i in range(SAMPLES)}):
            file.seek(place)
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()
