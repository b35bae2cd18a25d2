"""``MANIFEST.json``: sizes and digests of the checkpoints and merges of this package's trainer.

Sizes are compared when a checkpoint is opened, and the digest of a file when a process first reads
from it. A manifest of another kind, or one that is damaged itself, says nothing.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from rankscope.checkpoints.checksums import FileDigest
from rankscope.checkpoints.fingerprint import state_of
from rankscope.errors import RankscopeError

MANIFEST = "MANIFEST.json"
FORMATS = ("rankscope-checkpoint-", "rankscope-merges-")
ADVICE = "take it from a copy, or remove MANIFEST.json if it was changed on purpose"


def check_sizes(folder: Path) -> None:
    """Compare the sizes of all files of a checkpoint with its manifest, if it has one.

    Raises
    ------
    RankscopeError
        If a file is not there or of another size.
    """
    for name, digest in _files(folder).items():
        state = state_of(folder / name)
        if state is None or state[0] != digest.size:
            what = "is not there" if state is None else f"has {state[0]} bytes"
            message = f"its file {name} {what}, and {digest.size} were written: {ADVICE}"
            raise RankscopeError(message, path=folder, reason="damaged")


def check_content(path: Path, content: bytes) -> None:
    """Compare all that was read of a file with the manifest that lists it, if there is one.

    Raises
    ------
    RankscopeError
        If it is not what was written.
    """
    digest = digest_of(path)
    if (
        digest is not None
        and hashlib.blake2b(content, digest_size=32).hexdigest() != digest.blake2b
    ):
        raise RankscopeError(f"{digest.fault}: {ADVICE}", path=path, reason="damaged")


def digest_of(path: str | Path) -> FileDigest | None:
    """What the manifest beside a file, or beside its folder, says of it."""
    path = Path(path)
    for folder in path.parents[:2]:
        found = _files(folder).get(path.relative_to(folder).as_posix())
        if found is not None:
            return found
    return None


def _files(folder: Path) -> dict[str, FileDigest]:
    state = state_of(folder / MANIFEST)
    return {} if state is None else _listed(folder, *state)


@lru_cache(maxsize=64)
def _listed(folder: Path, _size: int, _modified: int) -> dict[str, FileDigest]:
    try:
        manifest: Any = json.loads((folder / MANIFEST).read_bytes())
        if not str(manifest["format"]).startswith(FORMATS):
            return {}
        return {
            str(name): FileDigest(int(one["bytes"]), str(one["blake2b"]))
            for name, one in manifest["files"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
