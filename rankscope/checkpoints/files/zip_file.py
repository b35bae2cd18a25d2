"""Zip archives: where their uncompressed entries are."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from typing_extensions import override

from rankscope.checkpoints.limits import MAX_DIRECTORY
from rankscope.checkpoints.remote.remote_file import RemoteFile
from rankscope.checkpoints.tensors import AGAIN
from rankscope.errors import RankscopeError, printable

LOCAL_HEADER = 30  # bytes before the second copy of an entry's name, which is beside its data
END, END_SIZE, MAX_COMMENT = b"PK\5\6", 22, 2**16  # of the record at the end of a zip
END_64, END_64_SIZE = b"PK\6\6", 56  # of the one before it where numbers are large, and of what
LOCATOR, LOCATOR_SIZE = b"PK\6\7", 20  # stands between the two


class FilePart(io.RawIOBase):
    """A range of bytes of an open file, as a file of its own."""

    def __init__(self, file: io.FileIO, start: int, size: int) -> None:
        super().__init__()
        self._file, self.start, self.size, self._place = file, start, size, 0

    @override
    def readable(self) -> bool:
        return True

    @override
    def seekable(self) -> bool:
        return True

    @override
    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self.size}[whence]
        if base + offset < 0:
            raise OSError("seeks to before the start")
        self._place = base + offset
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer, up to the end of the part."""
        count = max(0, min(len(buffer), self.size - self._place))
        self._file.seek(self.start + self._place)
        read = self._file.readinto(memoryview(buffer)[:count]) or 0
        self._place += read
        return read

    def fetch_ahead(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Have ranges at hand that will be read; if the file is on this machine, they are."""
        if isinstance(self._file, RemoteFile):
            self._file.fetch_ahead([(self.start + a, self.start + b) for a, b in ranges])

    def first(self, count: int) -> FilePart:
        """Its first bytes, at most ``count``."""
        return FilePart(self._file, self.start, min(self.size, count))

    def bytes_at(self, place: int, count: int) -> bytes:
        """``count`` bytes from a place; fewer where the part ends."""
        self.seek(place)
        content = bytearray()
        while len(content) < count and (more := self.read(count - len(content))):
            content += more
        return bytes(content)


def zip_entries(part: FilePart, path: Path) -> dict[str, zipfile.ZipInfo]:
    """Entries of a zip by name, from its directory alone.

    Raises
    ------
    RankscopeError
        If its directory is not whole, or has a name twice; with the reason ``over-limit``, if it
        is longer than `MAX_DIRECTORY`.
    """
    length = _directory_bytes(part)
    if length > MAX_DIRECTORY:
        message = f"is a zip with a directory of {length} bytes, more than {MAX_DIRECTORY}"
        raise RankscopeError(message, path=path, reason="over-limit")
    try:
        with zipfile.ZipFile(io.BufferedReader(part)) as archive:
            listing = archive.infolist()
    except Exception as error:  # zipfile raises whatever a damaged directory leads it to
        what = printable((str(error) or type(error).__name__).splitlines()[0])
        message = f"is cut short or damaged ({what}): {AGAIN}"
        raise RankscopeError(message, path=path, reason="cut-short") from None
    twice = [name for name, count in Counter(i.filename for i in listing).items() if count > 1]
    if twice:
        message = f"is a damaged zip: it has the entry {printable(twice[0])} twice"
        raise RankscopeError(message, path=path, reason="duplicate-key")
    part.fetch_ahead((i.header_offset, i.header_offset + LOCAL_HEADER) for i in listing)
    return {info.filename: info for info in listing}


def _directory_bytes(part: FilePart) -> int:
    """How long the directory is, as the record at the end says; 0 if there is none."""
    start = max(0, part.size - END_SIZE - MAX_COMMENT)
    tail = part.bytes_at(start, END_SIZE + MAX_COMMENT)
    at = len(tail) - END_SIZE
    if tail[at : at + 4] != END:
        at = tail.rfind(END)
    if at < 0:
        return 0
    length = int.from_bytes(tail[at + 12 : at + 16], "little")
    large = at - LOCATOR_SIZE - END_64_SIZE
    if tail[max(large, 0) :][:4] == END_64 and tail[at - LOCATOR_SIZE :][:4] == LOCATOR:
        length = int.from_bytes(tail[large + 40 : large + 48], "little")
    return length


def data_start(part: FilePart, info: zipfile.ZipInfo, path: Path) -> int:
    """Where the data of an entry begin in the part: after its local header, whose length varies.

    Raises
    ------
    RankscopeError
        If the entry is not within the part.
    """
    header = part.bytes_at(info.header_offset, LOCAL_HEADER) if info.header_offset >= 0 else b""
    if len(header) < LOCAL_HEADER or header[:4] != b"PK\3\4":
        message = "is not where the directory of the zip says"
        raise _damaged(info, message, path, reason="damaged")
    lengths = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    place = info.header_offset + LOCAL_HEADER + lengths
    if place + info.compress_size > part.size:
        raise _damaged(info, f"is cut short: {AGAIN}", path, reason="cut-short")
    return place


def stored_start(part: FilePart, info: zipfile.ZipInfo, path: Path) -> int:
    """Where the data of an entry begin that is neither compressed nor encrypted.

    Raises
    ------
    RankscopeError
        If the entry is either, or is not within the part.
    """
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        message = "is compressed in a way that is not read"
        raise _damaged(info, message, path, reason="zip-compressed")
    if info.flag_bits & 1:
        raise _damaged(info, "is encrypted", path, reason="zip-encrypted")
    return data_start(part, info, path)


def entry_bytes(part: FilePart, info: zipfile.ZipInfo, path: Path, *, limit: int) -> bytes:
    """All bytes of a small entry that is not compressed, checked against its checksum.

    Raises
    ------
    RankscopeError
        If it has more than ``limit`` bytes, or its bytes do not match its checksum.
    """
    place = stored_start(part, info, path)
    if info.file_size > limit:
        message = f"has {info.file_size} bytes, more than {limit}"
        raise _damaged(info, message, path, reason="too-large")
    content = part.bytes_at(place, info.file_size)
    # Torch writes 0 where it is told not to compute checksums.
    if info.CRC and zlib.crc32(content) != info.CRC:
        message = f"is damaged, its checksum differs: {AGAIN}"
        raise _damaged(info, message, path, reason="damaged")
    return content


def _damaged(info: zipfile.ZipInfo, what: str, path: Path, *, reason: str) -> RankscopeError:
    message = f"its entry {printable(info.filename)} {what}"
    return RankscopeError(message, path=path, reason=reason)
