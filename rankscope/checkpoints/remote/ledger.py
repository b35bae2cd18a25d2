"""How many bytes were fetched from elsewhere, by this process and the workers that read for it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from rankscope import durable
from rankscope.checkpoints.remote.range_cache import LEDGERS

MOST = 2**20  # bytes of a ledger, above which the next call begins a new one


@dataclass(frozen=True)
class Fetched:
    """What was fetched: bytes of objects, without headers of answers and without listings."""

    requests: int = 0
    size: int = 0


_begun: dict[Path, int] = {}  # ledgers of this process's places, and where its own lines begin


def note_fetched(root: Path, place: str, size: int) -> None:
    """Write down that bytes were fetched from a place; this costs nothing if it fails."""
    with contextlib.suppress(OSError):
        durable.append(root / LEDGERS / place, b"%d\n" % size)


def begin(root: Path, place: str) -> None:
    """Count what is fetched from a place from now on, by whichever process."""
    path = root / LEDGERS / place
    if path in _begun:
        return
    durable.make_folder(path.parent)
    length = path.stat().st_size if path.exists() else 0
    if length > MOST:
        path.unlink(missing_ok=True)
        length = 0
    _begun[path] = length


def fetched() -> Fetched:
    """What was fetched from the places that this process has opened, since it first did."""
    sizes: list[int] = []
    for path, length in _begun.items():
        with contextlib.suppress(OSError):
            sizes += map(int, path.read_bytes()[length:].split())
    return Fetched(len(sizes), sum(sizes))
