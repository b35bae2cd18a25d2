"""Which process writes a temporary file, and whether it may still be at work.

The name of a temporary file says on which machine its writer runs, under which number, and since
when: numbers are given out again. A process on another machine, or in another container, cannot be
asked; what it left counts as abandoned when nothing in it has changed for a week.
"""

from __future__ import annotations

import hashlib
import os
import platform
import time
from functools import lru_cache
from pathlib import Path

from rankscope.platforms import process_beginning

MARK = r"[0-9a-f]{8}-\d{1,9}-[0-9a-f]{8}"  # machine, number of the process, its beginning
WEEK = 7 * 24 * 3600.0  # seconds; no writer of this package is silent for that long
_BOOT, _NUMBERS = "/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"


def own_mark() -> str:
    """The mark of this process."""
    return _mark_of(os.getpid())


def is_abandoned(path: Path, mark: str) -> bool:
    """Whether the process with this mark will not write to ``path`` any more."""
    machine, number, since = mark.split("-")
    if machine != _machine():
        return time.time() - _last_change(path) > WEEK
    return _beginning(int(number)) not in (since, None)


@lru_cache(maxsize=2)  # also right in a child that was forked
def _mark_of(number: int) -> str:
    return f"{_machine()}-{number}-{_beginning(number) or '0' * 8}"


@lru_cache(maxsize=1)
def _machine() -> str:
    """A digest for everything that shares one numbering of processes, until it starts anew."""
    try:
        identity = Path(_BOOT).read_text() + os.readlink(_NUMBERS)  # noqa: PTH115, it is not a path
    except OSError:  # not Linux
        identity = platform.node()
    return _digest(identity)


def _beginning(number: int) -> str | None:
    """A digest for the time at which a process began, or for its end; None if unknown."""
    beginning = process_beginning(number)
    return None if beginning is None else _digest(beginning)


def _last_change(path: Path) -> float:
    """When anything at or below a path last changed."""
    paths = [path, *path.rglob("*")] if path.is_dir() and not path.is_symlink() else [path]
    return max(one.lstat().st_mtime for one in paths)


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
