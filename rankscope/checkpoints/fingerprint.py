"""Fingerprints of files, by which different ones are never taken for the same."""

from __future__ import annotations

import hashlib
import os
from functools import lru_cache
from pathlib import Path

from rankscope.checkpoints.tensors import open_regular

SAMPLES, SAMPLE_BYTES = 32, 4096

# Size; time of the last change of the content; and of anything, which no program can set back. Not
# the inode: file systems over a network may give another one each time.
State = tuple[int, int, int]


def state_of(path: str | Path) -> State | None:
    """Size and times of the last change of a file; None if it is not there.

    Shows whether the file was written to, within the resolution of the file system's clock.
    """
    try:
        status = Path(path).stat()
    except (OSError, ValueError):  # a name in a file may be too long, or no name at all
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def states_below(path: Path) -> dict[str, State]:
    """The state of a file, or of every file in a folder and the folders in it.

    What vanishes meanwhile, as checkpoints do that a training no longer keeps, is left out.
    """
    files = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    states = {str(one): state_of(one) for one in sorted(files) or [path]}
    return {one: state for one, state in states.items() if state is not None}


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
