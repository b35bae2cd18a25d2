"""Fingerprints of files, by which different ones are never taken for the same."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

from rankscope.checkpoints.remote.remote_file import RemoteFile
from rankscope.checkpoints.tensors import open_regular

SAMPLES, SAMPLE_BYTES = 32, 4096


def fingerprint(path: str | Path) -> str:
    """Digest of a file's size, modification time, beginning, end and samples between.

    Weights in training change everywhere, so samples distinguish two checkpoints even where size
    and time were copied along; the time shows that a single tensor was edited. Reads 128 KiB. Of
    what lies elsewhere nothing is read: its version there distinguishes it.

    Raises
    ------
    RankscopeError
        If the file cannot be opened.
    """
    with open_regular(path) as (file, _):
        if isinstance(file, RemoteFile):
            return file.remote.entry.identity
        status = os.fstat(file.fileno())
    key = status.st_ino, status.st_ctime_ns
    return _sampled(str(path), status.st_size, status.st_mtime_ns, key)


@lru_cache(maxsize=4096)
def _sampled(path: str, size: int, modified: int, _key: tuple[int, int]) -> str:
    digest = hashlib.blake2b(f"{size} {modified}".encode(), digest_size=16)
    last = max(size - SAMPLE_BYTES, 0)
    with open_regular(path) as (file, _):
        for place in sorted({last * i // (SAMPLES - 1) for i in range(SAMPLES)}):
            file.seek(place)
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()
