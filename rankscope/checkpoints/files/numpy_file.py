"""Arrays as numpy saves them: ``.npy``, and ``.npz``, a zip of such files."""

from __future__ import annotations

import ast
import math
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from rankscope.checkpoints.checksums import Checksum
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.files.kinds import LOOK, not_weights
from rankscope.checkpoints.files.zip_file import FilePart, data_start, stored_start, zip_entries
from rankscope.checkpoints.limits import (
    COMPRESSION,
    FREE_BYTES,
    MAX_ARRAY_HEADER,
    check_memory,
    short_name,
    size_text,
)
from rankscope.checkpoints.tensors import (
    DTYPES,
    MAX_AXES,
    InOneFile,
    StoredTensor,
    Tensor,
    check_floats,
    open_regular,
    widened,
)
from rankscope.errors import RankscopeError, printable

DAMAGED = "its compressed data is damaged"
START = b"\x93NUMPY"

# numpy's names of the types. Two bytes without a meaning are bfloat16, as `ml_dtypes` saves it.
KINDS = {
    np.dtype(bits).str: name
    for name, (_, bits) in DTYPES.items()
    if name != "bfloat16" and not name.startswith("float8")
} | {"<V2": "bfloat16", "|V2": "bfloat16"}


@dataclass(frozen=True)
class CompressedArray(InOneFile):
    """An array of a compressed ``.npz``, decompressed each time that it is read."""

    path: str
    entry: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int  # of its first byte in the decompressed entry
    is_fortran: bool

    @override
    def read(self) -> NDArray[Any]:
        check_floats(self)
        values = np.frombuffer(self._bytes(), DTYPES[self.dtype][1])
        values = widened(values) if self.dtype == "bfloat16" else values
        return np.array(values.reshape(self.shape, order="F" if self.is_fortran else "C"))

    def _bytes(self) -> bytes:
        what = f"its array of shape {list(self.shape)}"
        count = math.prod(self.shape) * DTYPES[self.dtype][0]
        check_memory(count, what, path=self.path, tensor=self.name)
        with open_regular(self.path) as (file, _):
            try:
                with zipfile.ZipFile(file) as archive, archive.open(self.entry) as entry:
                    entry.read(self.offset)
                    content = entry.read(count)
                    is_whole = len(content) == count and not entry.read(1)
            except Exception:  # zipfile raises whatever damage leads it to
                is_whole = False
        if not is_whole:
            raise RankscopeError(DAMAGED, path=self.path, tensor=self.name, reason="damaged")
        return content


@dataclass(frozen=True)
class _Header:
    """The header of an array."""

    kind: str  # numpy's name of the type
    shape: tuple[int, ...]
    is_fortran: bool
    length: int

    @property
    def dtype(self) -> str | None:
        """Name of the type in `DTYPES`; None if it is not there."""
        return KINDS.get(self.kind)

    @property
    def size(self) -> int:
        """Bytes of header and elements."""
        return self.length + math.prod(self.shape) * DTYPES[self.dtype or "bool"][0]


def open_arrays(path: Path) -> tuple[dict[str, Tensor], tuple[Skip, ...]]:
    """List the arrays of a ``.npz`` or ``.npy`` file by name, and a skip for each that is left out.

    Reads only headers. The array of a ``.npy`` has the name of the file. Arrays of objects (which
    are pickles), text and records, and big-endian numbers, are left out.

    Raises
    ------
    RankscopeError
        If the file is damaged or of another kind.
    """
    with open_regular(path) as (file, size):
        part = FilePart(file, 0, size)
        if part.bytes_at(0, len(START)) == START:
            header = _header(part.bytes_at(0, MAX_ARRAY_HEADER), path, path.stem)
            skip = _skip(header, path, path.stem)
            if skip is not None:
                return {}, (skip,)
            _check_size(header, size, path, path.stem)
            return {path.stem: _stored(header, 0, path, path.stem)}, ()
        start = part.bytes_at(0, LOOK)
        if not start.startswith(b"PK"):
            raise not_weights(start, size, path, kind="numpy")
        return _archived(part, path)


def _archived(part: FilePart, path: Path) -> tuple[dict[str, Tensor], tuple[Skip, ...]]:
    arrays: dict[str, Tensor] = {}
    skips, left = [], FREE_BYTES + COMPRESSION * part.size
    for entry, info in zip_entries(part, path).items():
        if not entry.endswith(".npy"):
            continue
        name = short_name(entry.removesuffix(".npy"))
        is_compressed = info.compress_type == zipfile.ZIP_DEFLATED
        start = (data_start if is_compressed else stored_start)(part, info, path)
        raw = part.bytes_at(start, min(info.compress_size, MAX_ARRAY_HEADER))
        header = _header(_inflated(raw, path, name) if is_compressed else raw, path, name)
        skip = _skip(header, path, name)
        if skip is not None:
            skips.append(skip)
            continue
        _check_size(header, info.file_size, path, name)
        left -= header.size if is_compressed else 0
        if left < 0:
            message = (
                f"takes {size_text(header.size)} of a file of {size_text(part.size)}, "
                f"more than {COMPRESSION} times of it with the arrays before: it is not unpacked"
            )
            skips.append(Skip(str(path), name, "expands", message))
            left += header.size
            continue
        arrays[name] = (
            _compressed(header, entry, path, name)
            if is_compressed
            else _stored(header, start, path, name, info=info)
        )
    if not arrays and not skips:
        message = "is a zip without numpy arrays"
        raise RankscopeError(message, path=path, reason="no-tensors")
    return arrays, tuple(skips)


def _inflated(raw: bytes, path: Path, name: str) -> bytes:
    """The first bytes of a compressed entry."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(raw, MAX_ARRAY_HEADER)
    except zlib.error:
        raise RankscopeError(DAMAGED, path=path, tensor=name, reason="damaged") from None


def _header(raw: bytes, path: Path, name: str) -> _Header:
    """Read the text of a dict, which follows a mark, the version and the length."""
    version = raw[6] if len(raw) > 12 else 0
    start = 10 if version == 1 else 12
    end = start + int.from_bytes(raw[8:start], "little")
    try:
        if raw[:6] != START or version not in (1, 2, 3) or end > len(raw):
            raise ValueError("no header")
        entries = ast.literal_eval(raw[start:end].decode("utf-8" if version == 3 else "latin-1"))
        kind, shape, is_fortran = entries["descr"], entries["shape"], entries["fortran_order"]
        is_shape = isinstance(shape, tuple) and len(shape) <= MAX_AXES
        if not is_shape or not all(type(x) is int and x >= 0 for x in shape):
            raise ValueError("no shape")
    except (ValueError, SyntaxError, TypeError, KeyError, RecursionError, MemoryError):
        message = "does not have the header of a numpy array"
        raise RankscopeError(message, path=path, tensor=name, reason="damaged") from None
    return _Header(str(kind), shape, is_fortran is True, end)


def _skip(header: _Header, path: Path, name: str) -> Skip | None:
    if header.dtype is not None:
        return None
    message = f"is an array of {printable(header.kind, limit=60)}, which is not read"
    return Skip(str(path), name, "no-numbers", message)


def _check_size(header: _Header, size: int, path: Path, name: str) -> None:
    if header.size != size:
        # Python does not print a number of over 4300 digits.
        shown = header.size if header.size < 2**63 else f"over {2**63}"
        message = f"should have {shown} bytes by its header, but has {size}"
        raise RankscopeError(message, path=path, tensor=name, reason="size-mismatch")


def _stored(
    header: _Header, start: int, path: Path, name: str, *, info: zipfile.ZipInfo | None = None
) -> StoredTensor:
    strides = None
    if header.is_fortran and len(header.shape) > 1:
        strides = tuple(math.prod(header.shape[:axis]) for axis in range(len(header.shape)))
    return StoredTensor(
        *(str(path), name, header.dtype or "", header.shape, start + header.length, strides),
        checksum=None if info is None else Checksum.stated(start, info.file_size, info.CRC),
    )


def _compressed(header: _Header, entry: str, path: Path, name: str) -> CompressedArray:
    return CompressedArray(
        *(str(path), entry, name, header.dtype or "", header.shape),
        offset=header.length,
        is_fortran=header.is_fortran,
    )
