"""The bytes of objects elsewhere that were fetched already, on this disk and bounded in size.

Each range is a file of its own, named by its bounds in the folder of its object, with a digest at
its end: what was cut or damaged is fetched again. Files are written in a single step, so several
processes may share a cache, and any file may be removed at any time. They are not flushed to the
disk: the digest shows what a loss of power left of one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rankscope import durable
from rankscope.checkpoints.limits import size_in
from rankscope.platforms import cache_of_user

CACHE, CACHE_SIZE = "RANKSCOPE_CACHE", "RANKSCOPE_CACHE_SIZE"
DEFAULT_SIZE = 20 * 10**9  # bytes
KEPT = 0.9  # share of the size that is left after what was used least recently is removed
CHECKS = 50  # how many ranges of a fiftieth of the size are added between two looks at the whole
RANGES, LISTINGS, LEDGERS = "ranges", "listings", "fetched"  # folders in the cache
DIGEST = 16  # bytes


def cache_root() -> Path:
    """Folder of the cache: that of ``RANKSCOPE_CACHE``, or ``rankscope`` in the user's cache."""
    if stated := os.environ.get(CACHE):
        return Path(stated).expanduser().absolute()
    return cache_of_user() / "rankscope"


def cache_size() -> int:
    """Most bytes of ranges in the cache, as ``RANKSCOPE_CACHE_SIZE`` states them.

    Raises
    ------
    WrongSettingError
        If the variable does not hold a size.
    """
    stated = os.environ.get(CACHE_SIZE, "")
    return size_in(stated, CACHE_SIZE) if stated.strip() else DEFAULT_SIZE


@dataclass
class RangeCache:
    """The ranges of one object.

    Attributes
    ----------
    folder
        Where they are.
    """

    folder: Path

    @classmethod
    def of(cls, root: Path, identity: str) -> RangeCache:
        """The ranges of the object with this identity."""
        return cls(root / RANGES / identity[:2] / identity)

    def bounds(self) -> list[tuple[int, int]]:
        """First byte and end of every range that is there, in order."""
        found = []
        with contextlib.suppress(OSError):
            for name in os.listdir(self.folder):  # noqa: PTH208, names alone are wanted
                start, dash, stop = name.partition("-")
                if dash and start.isdecimal() and stop.isdecimal():
                    found.append((int(start), int(stop)))
        return sorted(found)

    def get(self, start: int, stop: int) -> bytes | None:
        """The bytes of a range; None if it is not there, or damaged."""
        path = self.folder / f"{start}-{stop}"
        try:
            content = path.read_bytes()
            os.utime(path)  # it is used
        except OSError:
            return None
        data, digest = content[:-DIGEST], content[-DIGEST:]
        if len(data) != stop - start or _digest(data) != digest:
            with contextlib.suppress(OSError):
                path.unlink()
            return None
        return data

    def put(self, start: int, data: bytes) -> None:
        """Keep bytes from ``start`` on; what was used least recently goes if there are too many.

        A cache that cannot be written costs time only.
        """
        path = self.folder / f"{start}-{start + len(data)}"
        with contextlib.suppress(OSError):
            durable.write_file(path, data + _digest(data), wait=False)
            _make_room(self.folder.parents[2], len(data))


_added: dict[Path, int] = {}  # bytes since the last look at the whole cache


def _make_room(root: Path, size: int) -> None:
    """Remove the ranges that were used least recently, once there are more bytes than may be."""
    limit = cache_size()
    _added[root] = _added.get(root, limit) + size  # the first one of a process always looks
    if _added[root] < limit / CHECKS:
        return
    _added[root] = 0
    files = list(_iter_files(root / RANGES))
    total = sum(length for _, length, _ in files)
    if total <= limit:
        return
    for _, length, path in sorted(files):
        if total <= KEPT * limit:
            return
        with contextlib.suppress(OSError):  # another process makes room too
            os.unlink(path)  # noqa: PTH108, the path is text
            total -= length


def _iter_files(folder: Path) -> Iterator[tuple[float, int, str]]:
    """Time of last use, size and path of every file of ranges."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)  # noqa: PTH118, there may be many
            with contextlib.suppress(OSError):
                status = os.stat(path)  # noqa: PTH116
                yield status.st_mtime, status.st_size, path


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST).digest()
