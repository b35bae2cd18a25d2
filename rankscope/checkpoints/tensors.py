"""Tensors on disk: where their elements are, read when they are asked for.

Code that opens a file (`rankscope.checkpoints.files`) lists its tensors from the headers alone.
They are read here rather than by the libraries that wrote them, because analysis needs what those
do not offer: bfloat16 without torch; part of a tensor; errors that name the file and the tensor;
no memory map, since a trainer that truncates a mapped file kills the process that reads it.
"""

from __future__ import annotations

import io
import math
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from typing_extensions import override

from rankscope.addresses import is_stand_in
from rankscope.checkpoints.checksums import Checksum, FileDigest
from rankscope.checkpoints.file_states import unchanged
from rankscope.checkpoints.limits import check_memory
from rankscope.checkpoints.links import check_link
from rankscope.errors import RankscopeError, cannot_be_read
from rankscope.platforms import READ_REGULAR

# name in tables → (bytes per element, numpy type of the stored bits)
DTYPES = {
    "float64": (8, "<f8"),
    "float32": (4, "<f4"),
    "float16": (2, "<f2"),
    "bfloat16": (2, "<u2"),
    "int64": (8, "<i8"),
    "int32": (4, "<i4"),
    "int16": (2, "<i2"),
    "int8": (1, "i1"),
    "uint64": (8, "<u8"),
    "uint32": (4, "<u4"),
    "uint16": (2, "<u2"),
    "uint8": (1, "u1"),
    "bool": (1, "?"),
    "float8_e4m3": (1, "u1"),
    "float8_e5m2": (1, "u1"),
    "complex64": (8, "<c8"),
    "complex128": (16, "<c16"),
}
FLOATS = ("float64", "float32", "float16", "bfloat16")
MAX_AXES = 64  # of an array of numpy
AGAIN = "copy or download it again"  # what to do about a damaged file

Axis = tuple[int, int]  # size, and stride in elements


class Tensor(Protocol):
    """A tensor on disk, or part of one. Holds no data, so it is cheap to keep and to send."""

    @property
    def name(self) -> str:
        """Its name in the file."""

    @property
    def dtype(self) -> str:
        """A key of `DTYPES`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of its axes."""

    @property
    def paths(self) -> tuple[str, ...]:
        """Files that it is read from."""

    def read(self) -> NDArray[Any]:
        """Read the values; bfloat16 as float32, which holds it exactly.

        Raises
        ------
        RankscopeError
            If a file is gone or shorter than its header says, or the numbers are not
            floating-point.
        """

    def elements(self, start: int, stop: int) -> NDArray[Any]:
        """Read elements ``start:stop`` in row-major order; otherwise as `read`."""


class OnDisk(ABC):
    """What kinds of `Tensor` share, so that each of them need not say it again."""

    @property
    @abstractmethod
    def paths(self) -> tuple[str, ...]:
        """Files that it is read from."""

    @abstractmethod
    def read(self) -> NDArray[Any]:
        """Read the values; bfloat16 as float32, which holds it exactly."""

    def elements(self, start: int, stop: int) -> NDArray[Any]:
        """Read elements ``start:stop`` in row-major order; here by reading all of them."""
        return self.read().reshape(-1)[start:stop]


class InOneFile(OnDisk):
    """A tensor that is read from a single file."""

    path: str

    @property
    @override
    def paths(self) -> tuple[str, ...]:
        return (self.path,)


@dataclass(frozen=True)
class StoredTensor(InOneFile):
    """A tensor whose elements are in one file, one after the other.

    Attributes
    ----------
    offset
        Its first byte, counted from the start of the file.
    strides
        Strides of its axes in elements, where it is not in row-major order.
    checksum
        Checksum of the storage or file that it is part of, where there is one; compared on reading.
    """

    path: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    strides: tuple[int, ...] | None = None
    checksum: Checksum | FileDigest | None = None

    @property
    def nbytes(self) -> int:
        """Size of its elements."""
        return math.prod(self.shape) * DTYPES[self.dtype][0]

    @override
    def read(self) -> NDArray[Any]:
        check_floats(self)
        return self.numbers()

    def numbers(self) -> NDArray[Any]:
        """Read the values whatever their dtype, as of a mask or an index, which is not a weight."""
        if self.strides is None:
            return self._elements(0, math.prod(self.shape)).reshape(self.shape)
        if 0 in self.shape:
            return self._elements(0, 0).reshape(self.shape)
        axes = tuple(zip(self.shape, self.strides, strict=True))
        return strided(self._elements(0, span(axes)), axes)

    @override
    def elements(self, start: int, stop: int) -> NDArray[Any]:
        check_floats(self)
        if self.strides is None:
            return self._elements(start, stop)
        return self.numbers().reshape(-1)[start:stop]

    def _elements(self, start: int, stop: int) -> NDArray[Any]:
        size, bits = DTYPES[self.dtype]
        what = f"an array of shape {list(self.shape)}"
        check_memory((stop - start) * size, what, path=self.path, tensor=self.name)
        data = np.empty((stop - start) * size, dtype=np.uint8)
        self.read_bytes(data, start)
        values = data.view(bits)
        return widened(values) if self.dtype == "bfloat16" else values

    def read_bytes(self, data: NDArray[np.uint8], start: int = 0) -> None:
        """Fill an array of bytes with the elements from ``start`` on, as they are stored.

        Raises
        ------
        RankscopeError
            If the file cannot be read, is too short, or does not fit its checksum.
        """
        read, place = 0, self.offset + start * DTYPES[self.dtype][0]
        with open_regular(self.path) as (file, _):
            file.seek(place)
            while read < data.size and (count := file.readinto(data.data[read:])):
                read += count
            fault = self.checksum
            if fault is not None and fault.holds(file, place, data[:read]):
                fault = None
        if read < data.size:
            raise RankscopeError(
                f"is cut short: {read} of {data.size} bytes are there; {AGAIN}",
                path=self.path,
                tensor=self.name,
                reason="cut-short",
            )
        if fault is not None:
            name = None if isinstance(fault, FileDigest) else self.name
            raise RankscopeError(fault.fault, path=self.path, tensor=name, reason="damaged")


def not_floats(dtype: str) -> str:
    """That a weight of this type is not measured, and what can be done about it."""
    if dtype.startswith("complex"):
        return f"is stored as {dtype}: complex weights are not measured"
    return f"is stored as {dtype}, which is not a plain weight: give it dequantised"


def check_floats(tensor: Tensor) -> None:
    """Refuse numbers that are not floating-point.

    Raises
    ------
    RankscopeError
        With the reason ``quantised``.
    """
    if tensor.dtype not in FLOATS:
        raise RankscopeError(
            not_floats(tensor.dtype),
            path=tensor.paths[0],
            tensor=tensor.name,
            reason="quantised",
        )


def is_same_storage(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same elements of a file, as tied ones are."""
    if not isinstance(one, StoredTensor) or not isinstance(other, StoredTensor):
        return False
    return 0 not in one.shape and replace(one, name=other.name) == other


def span(axes: tuple[Axis, ...]) -> int:
    """Number of elements from the first element of these axes to the last, both included."""
    return 1 + sum((size - 1) * stride for size, stride in axes)


def strided(values: NDArray[Any], axes: tuple[Axis, ...]) -> NDArray[Any]:
    """Copy of the elements of one-dimensional ``values`` at these axes."""
    sizes, strides = zip(*axes, strict=True)
    steps = [stride * values.itemsize for stride in strides]
    return np.ascontiguousarray(as_strided(values, sizes, steps, writeable=False))


def widened(bits: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Turn the bits of bfloat16 numbers into float32, exactly."""
    return np.left_shift(bits, 16, dtype=np.uint32).view(np.float32)  # without a second copy


@contextmanager
def open_regular(path: str | Path) -> Iterator[tuple[io.FileIO, int]]:
    """Open a regular file for reading; yields it, unbuffered, and its size.

    Raises
    ------
    RankscopeError
        If it cannot be opened, or is a pipe, a device or a folder (a pipe would block for ever).
        Within `as_planned`, if somebody writes to it.
    """
    check_link(path)
    try:
        descriptor = os.open(path, READ_REGULAR)
    except OSError as error:
        raise cannot_be_read(error, path) from error
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise RankscopeError("is not a regular file", path=path)
    with _file(path, descriptor) as file, unchanged(path, descriptor):
        yield file, status.st_size


def _file(path: str | Path, descriptor: int) -> io.FileIO:
    """An open file; for a stand-in, the object elsewhere that it stands for."""
    if not is_stand_in(path):
        return io.FileIO(descriptor)
    from rankscope.checkpoints.remote.opening import opened

    try:
        return opened(path, descriptor)
    except BaseException:
        os.close(descriptor)
        raise
