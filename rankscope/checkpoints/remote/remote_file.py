"""A stand-in opened for reading: the bytes that are asked for are fetched, and cached."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typing_extensions import override

from rankscope.checkpoints.file_states import changed
from rankscope.checkpoints.remote.ledger import note_fetched
from rankscope.checkpoints.remote.objects import Changed, Entry, Source
from rankscope.checkpoints.remote.range_cache import RangeCache
from rankscope.errors import RankscopeError

AHEAD = 2**14  # bytes that a short read takes along, since the next one is usually right behind
GAP = 2**14  # bytes; ranges that lie no farther apart are fetched as one
PIECE = 2**24  # most bytes of one request
CONNECTIONS = 4  # at once, of one process that reads


@dataclass(frozen=True)
class Remote:
    """What is needed to read one object.

    Attributes
    ----------
    path
        Its stand-in, which errors name.
    root
        Folder of the cache.
    place
        Digest of the place that it was listed in.
    """

    path: str
    entry: Entry
    source: Source
    root: Path
    place: str

    @property
    def cache(self) -> RangeCache:
        """What was fetched of it already."""
        return RangeCache.of(self.root, self.entry.identity)

    def fetch(self, start: int, stop: int) -> bytes:
        """Fetch bytes and keep them in the cache.

        Raises
        ------
        RankscopeError
            If it changed since it was listed, or cannot be read.
        """
        try:
            data = self.source.read(self.entry, start, stop)
        except Changed:
            raise changed(self.path) from None
        note_fetched(self.root, self.place, len(data))
        if len(data) == stop - start:
            self.cache.put(start, data)
            return data
        for first in range(0, len(data), PIECE):  # the server has no ranges
            self.cache.put(first, data[first : first + PIECE])
        return data[start:stop]

    def missing(self, ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
        """What the cache lacks of some ranges, neighbours as one, in pieces for `fetch`."""
        return list(_iter_missing(ranges, self.cache.bounds(), self.entry.size))

    def fetch_all(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch what is missing of some ranges, several at once, as far as that is possible."""
        missing = self.missing(ranges)
        if not missing:
            return
        from concurrent.futures import ThreadPoolExecutor  # which files on this machine do without

        with ThreadPoolExecutor(CONNECTIONS) as pool, suppress(RankscopeError, OSError):
            list(pool.map(lambda bounds: self.fetch(*bounds), missing))


def _iter_missing(
    ranges: Iterable[tuple[int, int]], there: list[tuple[int, int]], size: int
) -> Iterator[tuple[int, int]]:
    """The parts of ranges that are not there yet, near ones as one, in pieces."""
    merged: list[list[int]] = []
    for start, stop in sorted(ranges):
        stop = min(stop, size)
        for first, end in there:
            if first <= start < end:
                start = end
        if start >= stop:
            continue
        if merged and start - merged[-1][1] <= GAP:
            merged[-1][1] = max(merged[-1][1], stop)
        else:
            merged.append([start, stop])
    for start, stop in merged:
        for first in range(start, stop, PIECE):
            yield first, min(first + PIECE, stop)


class RemoteFile(io.FileIO):
    """A stand-in that is open for reading, as a file with the content of its object.

    Its size, position and times are those of the stand-in.
    """

    def __init__(self, descriptor: int, remote: Remote) -> None:
        super().__init__(descriptor)
        self.remote = remote
        self._bounds = remote.cache.bounds()
        self._held: tuple[int, bytes] = (0, b"")

    def fetch_ahead(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch what is missing of ranges that will be read, several at once.

        Errors are left to their readers.
        """
        self.remote.fetch_all(ranges)
        self._bounds = self.remote.cache.bounds()

    @override
    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self._some(self.tell(), len(view))
        view[: len(data)] = data
        self.seek(len(data), io.SEEK_CUR)
        return len(data)

    @override
    def read(self, size: int | None = -1, /) -> bytes:
        left = self.remote.entry.size - self.tell()
        left = max(left if size is None or size < 0 else min(size, left), 0)
        parts = []
        while left and (data := self._some(self.tell(), left)):
            self.seek(len(data), io.SEEK_CUR)
            parts.append(data)
            left -= len(data)
        return b"".join(parts)

    @override
    def readall(self) -> bytes:
        return self.read()

    def _some(self, place: int, count: int) -> bytes:
        """Bytes from a place on: at most ``count``, and none only at the end."""
        stop = min(place + count, self.remote.entry.size)
        if place >= stop:
            return b""
        start, data = self._held
        if not start <= place < start + len(data):
            start, data = self._held = self._range_at(place, stop)
        return data[place - start : stop - start]

    def _range_at(self, place: int, stop: int) -> tuple[int, bytes]:
        """A range that holds a place, from the cache or fetched, and where it begins."""
        for start, end in self._bounds:
            if start <= place < end:
                data = self.remote.cache.get(start, end)
                if data is not None:
                    return start, data
                self._bounds.remove((start, end))  # it was removed, or is damaged
                return self._range_at(place, stop)
        size = self.remote.entry.size
        following = min((start for start, _ in self._bounds if start > place), default=size)
        stop = min(max(stop, place + AHEAD), place + PIECE, following, size)
        data = self.remote.fetch(place, stop)
        self._bounds.append((place, stop))
        return place, data
