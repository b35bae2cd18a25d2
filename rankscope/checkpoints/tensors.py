"""Tensors on disk: where their elements lie, read when they are asked for.

What opens a file (`rankscope.checkpoints.files`) lists its tensors from the headers alone. They are
read here, and not by the libraries that wrote them, because analysis needs what those do not give:
bfloat16 without torch; a part of a tensor; errors that name the file and the tensor; no memory map,
under which a file that a trainer truncates kills the process.
"""

from __future__ import annotations

import io
import math
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from rankscope.checkpoints.checksums import Checksum, FileDigest
from rankscope.errors import RankscopeError

# name in tables → (bytes an element, numpy type of the stored bits)
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

Axis = tuple[int, int]  # size, and stride in elements


class Tensor(Protocol):
    """A tensor on disk, or a part of one. Holds no data, so it is cheap to keep and to send."""

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
            If a file is gone, shorter than its header said, or not of floating-point numbers.
        """

    def elements(self, start: int, stop: int) -> NDArray[Any]:
        """Read so many of its elements, in row-major order; as `read` does."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor whose elements lie in one file, one after the other.

    Attributes
    ----------
    offset
        Of its first byte, from the start of the file.
    strides
        Of its axes, in elements, where it does not lie in row-major order.
    checksum
        Of what it is a part of, where the file has one: compared when it is read.
    """

    path: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    strides: tuple[int, ...] | None = None
    checksum: Checksum | FileDigest | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """The one file."""
        return (self.path,)

    @property
    def nbytes(self) -> int:
        """Size of its elements."""
        return math.prod(self.shape) * DTYPES[self.dtype][0]

    def read(self) -> NDArray[Any]:
        """Read the values; bfloat16 as float32, which holds it exactly."""
        self._check()
        return self.numbers()

    def numbers(self) -> NDArray[Any]:
        """Read the values as they lie there, as of a mask or an index, which is not a weight."""
        if self.strides is None:
            return self._elements(0, math.prod(self.shape)).reshape(self.shape)
        if 0 in self.shape:
            return self._elements(0, 0).reshape(self.shape)
        axes = tuple(zip(self.shape, self.strides, strict=True))
        return strided(self._elements(0, span(axes)), axes)

    def elements(self, start: int, stop: int) -> NDArray[Any]:
        """Read so many of its elements, in row-major order."""
        self._check()
        if self.strides is None:
            return self._elements(start, stop)
        return self.numbers().reshape(-1)[start:stop]

    def _check(self) -> None:
        """Refuse what is not of floating-point numbers."""
        if self.dtype not in FLOATS:
            raise RankscopeError(
                f"is stored as {self.dtype}, which is not a plain weight: give it dequantised",
                path=self.path,
                tensor=self.name,
                reason="quantised",
            )

    def _elements(self, start: int, stop: int) -> NDArray[Any]:
        size, bits = DTYPES[self.dtype]
        data = np.empty((stop - start) * size, dtype=np.uint8)
        read, place = 0, self.offset + start * size
        with open_regular(self.path) as (file, _):
            file.seek(place)
            while read < data.size and (count := file.readinto(data.data[read:])):
                read += count
            fault = self.checksum
            if fault is not None and fault.holds(file, place, data[:read]):
                fault = None
        if read < data.size:
            raise RankscopeError(
                f"is cut short: {read} of {data.size} bytes are there",
                path=self.path,
                tensor=self.name,
            )
        if fault is not None:
            name = None if isinstance(fault, FileDigest) else self.name
            raise RankscopeError(fault.fault, path=self.path, tensor=name, reason="damaged")
        values = data.view(bits)
        return widened(values) if self.dtype == "bfloat16" else values


def is_same_storage(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same elements of a file, as tied ones are."""
    if not isinstance(one, StoredTensor) or not isinstance(other, StoredTensor):
        return False
    return 0 not in one.shape and replace(one, name=other.name) == other


@dataclass(frozen=True)
class Region:
    """A matrix among the elements of a tensor: its first element, and its axes.

    Several axes may number the rows, outermost first, as where each head has its own rows of q, k
    and v.
    """

    start: int
    rows: tuple[Axis, ...]
    columns: Axis

    @classmethod
    def of(cls, shape: tuple[int, ...], *, index: int = 0) -> Region:
        """All of a matrix; or the matrix of this index in a stack of matrices."""
        rows, columns = shape[-2:]
        return cls(index * rows * columns, ((rows, columns),), (columns, 1))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return math.prod(size for size, _ in self.rows), self.columns[0]

    def transposed(self) -> Region:
        """The same with rows for columns."""
        (rows,) = self.rows
        return Region(self.start, (self.columns,), rows)

    def part(self, start: int, rows: tuple[Axis, ...]) -> Region:
        """Some of the rows: the first of them, and their axes with strides in rows."""
        ((_, stride),) = self.rows
        axes = tuple((size, step * stride) for size, step in rows)
        return Region(self.start + start * stride, axes, self.columns)


@dataclass(frozen=True)
class Part:
    """A matrix that is part of a stored tensor, or lies in it transposed."""

    whole: Tensor
    region: Region

    @property
    def name(self) -> str:
        """Name of the stored tensor."""
        return self.whole.name

    @property
    def dtype(self) -> str:
        """Format of the stored tensor."""
        return self.whole.dtype

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the part."""
        return self.region.shape

    @property
    def paths(self) -> tuple[str, ...]:
        """Files of the stored tensor."""
        return self.whole.paths

    def read(self) -> NDArray[Any]:
        """Read from the first to the last element of the part, and take what belongs to it."""
        if 0 in self.shape:
            return self.whole.elements(0, 0).reshape(self.shape)
        return self._cut(self.whole.elements)

    def of(self, values: NDArray[Any]) -> NDArray[Any]:
        """The same part of an array of the shape of the stored tensor."""
        flat = values.reshape(-1)
        return (
            flat[:0].reshape(self.shape)
            if 0 in self.shape
            else self._cut(lambda start, stop: flat[start:stop])
        )

    def _cut(self, elements: Callable[[int, int], NDArray[Any]]) -> NDArray[Any]:
        axes = (*self.region.rows, self.region.columns)
        start = self.region.start
        return strided(elements(start, start + span(axes)), axes).reshape(self.shape)

    def elements(self, start: int, stop: int) -> NDArray[Any]:
        """Read so many of its elements, in row-major order."""
        return self.read().reshape(-1)[start:stop]


def span(axes: tuple[Axis, ...]) -> int:
    """How far it is from the first element of these axes to behind the last."""
    return 1 + sum((size - 1) * stride for size, stride in axes)


def strided(values: NDArray[Any], axes: tuple[Axis, ...]) -> NDArray[Any]:
    """Copy of the elements of one-dimensional ``values`` at these axes."""
    sizes, strides = zip(*axes, strict=True)
    steps = [stride * values.itemsize for stride in strides]
    return np.ascontiguousarray(as_strided(values, sizes, steps, writeable=False))


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
