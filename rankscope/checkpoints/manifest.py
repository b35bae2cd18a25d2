"""``MANIFEST.json``: sizes and digests of checkpoints and merges that this package wrote.

Sizes are compared when a checkpoint is opened, and the digest of a file when a process first reads
from it. A manifest of another kind, or a damaged one, is ignored.
"""

from __future__ import annotations

import hashlib
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from rankscope.checkpoints.checksums import FileDigest
from rankscope.checkpoints.file_states import State, state_of
from rankscope.checkpoints.limits import MAX_JSON, check_values
from rankscope.checkpoints.tensors import open_regular
from rankscope.durable import MANIFEST
from rankscope.errors import DAMAGE, RankscopeError, printable

FORMATS = ("rankscope-checkpoint-", "rankscope-relora-checkpoint-", "rankscope-merges-")
ADVICE = "restore it from a copy, or remove MANIFEST.json if the change was deliberate"


def check_sizes(folder: Path) -> None:
    """Compare the sizes of all files of a checkpoint with its manifest, if it has one.

    Raises
    ------
    RankscopeError
        If a file is missing or has another size.
    """
    for name, digest in _files(folder).items():
        state = state_of(folder / name)
        if state is None or state[0] != digest.size:
            there = "is missing" if state is None else f"has {state[0]} bytes"
            shown = printable(name, limit=80)
            message = f"its file {shown} {there}, but {digest.size} bytes were written: {ADVICE}"
            raise RankscopeError(message, path=folder, reason="damaged")


def check_content(path: Path, content: bytes) -> None:
    """Compare the whole content of a file with the manifest that lists it, if there is one.

    Raises
    ------
    RankscopeError
        If it differs from what was written.
    """
    digest = digest_of(path)
    if (
        digest is not None
        and hashlib.blake2b(content, digest_size=32).hexdigest() != digest.blake2b
    ):
        raise RankscopeError(f"{digest.fault}: {ADVICE}", path=path, reason="damaged")


def digest_of(path: str | Path) -> FileDigest | None:
    """The digest of a file in the manifest beside it or beside its folder; None without one."""
    folder = path
    for _ in range(2):
        folder = os.path.dirname(folder)  # noqa: PTH120 (for every file that is read)
        listed = _files(folder)
        if listed and (digest := listed.get(Path(path).relative_to(folder).as_posix())) is not None:
            return digest
    return None


def listed_files(folder: Path) -> tuple[Path, ...]:
    """The files in the manifest of a folder, also those that are no longer there."""
    return tuple(folder / name for name in _files(folder))


def _files(folder: str | Path) -> dict[str, FileDigest]:
    state = state_of(os.path.join(folder, MANIFEST))  # noqa: PTH118 (for every file that is read)
    return {} if state is None else _listed(Path(folder), state)


@lru_cache(maxsize=64)
def _listed(folder: Path, _state: State) -> dict[str, FileDigest]:
    try:
        with open_regular(folder / MANIFEST) as (file, size):
            if size > MAX_JSON:
                return {}
            content = file.read()
        check_values(content, "it", path=folder / MANIFEST)
        manifest: Any = json.loads(content)
        if not str(manifest["format"]).startswith(FORMATS):
            return {}
        return {
            str(name): FileDigest(int(one["bytes"]), str(one["blake2b"]))
            for name, one in manifest["files"].items()
        }
    except (RankscopeError, OSError, *DAMAGE):
        return {}
