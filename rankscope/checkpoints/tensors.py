"""Tensors on disk: the header of a safetensors file is read at once, a tensor when asked for.

The format is read here and not by the safetensors package because analysis needs what the package
does not give: bfloat16 without torch; errors that name the file and the tensor; no memory map,
under which a file that a trainer truncates kills the process; refusal of duplicate names. Format:
8 bytes of header length, little-endian; JSON of name → dtype, shape, data_offsets; the data.
"""

from __future__ import annotations

import io
import json
import math
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import RankscopeError

MAX_HEADER = 100_000_000  # bytes; the format's own limit

# name in the file → (name in tables, bytes an element, numpy type of the stored bits)
DTYPES = {
    "F64": ("float64", 8, "<f8"),
    "F32": ("float32", 4, "<f4"),
    "F16": ("float16", 2, "<f2"),
    "BF16": ("bfloat16", 2, "<u2"),
    "I64": ("int64", 8, "<i8"),
    "I32": ("int32", 4, "<i4"),
    "I16": ("int16", 2, "<i2"),
    "I8": ("int8", 1, "i1"),
    "U64": ("uint64", 8, "<u8"),
    "U32": ("uint32", 4, "<u4"),
    "U16": ("uint16", 2, "<u2"),
    "U8": ("uint8", 1, "u1"),
    "BOOL": ("bool", 1, "?"),
    "F8_E4M3": ("float8_e4m3", 1, "u1"),
    "F8_E5M2": ("float8_e5m2", 1, "u1"),
    "C64": ("complex64", 8, "<c8"),
}
FLOATS = ("float64", "float32", "float16", "bfloat16")


@dataclass(frozen=True)
class StoredTensor:
    """Where one tensor lies on disk. Holds no data, so it is cheap to keep and to send."""

    path: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int  # of its first byte, from the start of the file

    @property
    def nbytes(self) -> int:
        """Size on disk."""
        return math.prod(self.shape) * _BYTES[self.dtype]

    def read(self) -> NDArray[Any]:
        """Read the values; bfloat16 as float32, which holds it exactly.

        Raises
        ------
        RankscopeError
            If the file is gone, shorter than its header said, or not of floating-point numbers.
        """
        if self.dtype not in FLOATS:
            raise RankscopeError(
                f"is stored as {self.dtype}, which is no plain weight: give it dequantised",
                path=self.path,
                tensor=self.name,
                reason="quantised",
            )
        data = np.empty(self.nbytes, dtype=np.uint8)
        read = 0
        with open_regular(self.path) as (file, _):
            file.seek(self.offset)
            while read < data.size and (count := file.readinto(data.data[read:])):
                read += count
        if read < data.size:
            raise RankscopeError(
                f"is cut short: {read} of {data.size} bytes are there",
                path=self.path,
                tensor=self.name,
            )
        values = data.view(_BITS[self.dtype]).reshape(self.shape)
        return widened(values) if self.dtype == "bfloat16" else values


_BYTES = {name: size for name, size, _ in DTYPES.values()}
_BITS = {name: bits for name, _, bits in DTYPES.values()}


def widened(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Turn the bits of bfloat16 numbers into float32, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


@contextmanager
def open_regular(path: str | Path) -> Iterator[tuple[io.FileIO, int]]:
    """Open a regular file for reading; yields it, unbuffered, and its size.

    Raises
    ------
    RankscopeError
        If it cannot be opened, or is a pipe, a device or a folder (a pipe would block for ever).
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise RankscopeError(f"cannot be opened ({error.strerror})", path=path) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise RankscopeError("is not a regular file", path=path)
    with io.FileIO(descriptor) as file:
        yield file, status.st_size


def open_tensors(path: str | Path) -> dict[str, StoredTensor]:
    """List the tensors of a safetensors file; reads its header and nothing else.

    Raises
    ------
    RankscopeError
        If the file is not a whole and consistent safetensors file.
    """
    header, data_start, size = _read_header(path)
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            tensors[name] = _stored(path, name, entry, data_start)
    _check_cover(path, list(tensors.values()), data_start, size)
    return tensors


def _read_header(path: str | Path) -> tuple[dict[str, Any], int, int]:
    """Header, offset of the first data byte, and size of the file."""
    with open_regular(path) as (file, size):
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if size < 8 or length > min(MAX_HEADER, size - 8):
            raise RankscopeError(_not_safetensors(start + file.read(64), size), path=path)
        raw = file.read(length)
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise RankscopeError(f"has a damaged safetensors header ({error})", path=path) from error
    if not isinstance(header, dict) or not isinstance(header.get("__metadata__", {}), dict):
        raise RankscopeError("has a safetensors header that is not a table", path=path)
    return header, 8 + length, size


def _not_safetensors(start: bytes, size: int) -> str:
    if size == 0:
        return "is empty, not a safetensors file"
    if start.startswith(b"version https://git-lfs"):
        return "is a git-lfs pointer, not the weights: run `git lfs pull`"
    if start.lstrip()[:1] == b"<":
        return "is a web page, not a safetensors file"
    return f"is cut short or not a safetensors file ({size} bytes)"


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice!r} is there twice")
    return table


def _stored(path: str | Path, name: str, entry: Any, data_start: int) -> StoredTensor:
    def fault(message: str) -> RankscopeError:
        return RankscopeError(message, path=path, tensor=name)

    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise fault("its header entry has no dtype, shape and data_offsets")
    shape, offsets = entry["shape"], entry["data_offsets"]
    if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
        raise fault(f"its shape {shape} and offsets {offsets} must be whole numbers from 0")
    if entry["dtype"] not in DTYPES:
        raise fault(f"has the unknown dtype {entry['dtype']!r}")
    tensor = StoredTensor(
        str(path), name, DTYPES[entry["dtype"]][0], tuple(shape), data_start + offsets[0]
    )
    if offsets[1] - offsets[0] != tensor.nbytes:
        raise fault(
            f"{tensor.dtype} of shape {shape} takes {tensor.nbytes} bytes, "
            f"its offsets span {offsets[1] - offsets[0]}"
        )
    return tensor


def _are_counts(numbers: Any) -> bool:
    return isinstance(numbers, list) and all(type(x) is int and x >= 0 for x in numbers)


def _check_cover(path: str | Path, tensors: list[StoredTensor], data_start: int, size: int) -> None:
    """The data of the tensors must fill the file, without hole, overlap or rest."""
    end = data_start
    for tensor in sorted(tensors, key=lambda tensor: (tensor.offset, tensor.nbytes)):
        if tensor.offset != end and tensor.nbytes:
            kind = "overlaps the tensor before it" if tensor.offset < end else "leaves a hole"
            raise RankscopeError(f"its data {kind}", path=path, tensor=tensor.name)
        end = max(end, tensor.offset + tensor.nbytes)
    if end > size:
        raise RankscopeError(f"is cut short: {end - size} of {end} bytes are missing", path=path)
    if end < size:
        raise RankscopeError(f"has {size - end} bytes behind its last tensor", path=path)
