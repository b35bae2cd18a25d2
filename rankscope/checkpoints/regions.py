"""Matrices inside stored tensors: rows of a fused weight, one of a stack, a transposed weight."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from typing_extensions import override

from rankscope.checkpoints.tensors import Axis, OnDisk, Tensor, span, strided


@dataclass(frozen=True)
class Region:
    """A matrix among the elements of a tensor: its first element and its axes.

    Several axes, outermost first, may number the rows, for example where each head has its own rows
    of q, k and v.
    """

    start: int
    rows: tuple[Axis, ...]
    columns: Axis

    @classmethod
    def of(cls, shape: tuple[int, ...], *, index: int = 0) -> Region:
        """All of a matrix, or the matrix at this index in a stack of matrices."""
        rows, columns = shape[-2:]
        return cls(index * rows * columns, ((rows, columns),), (columns, 1))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return math.prod(size for size, _ in self.rows), self.columns[0]

    def transposed(self) -> Region:
        """The same elements with rows and columns exchanged."""
        (rows,) = self.rows
        return Region(self.start, (self.columns,), rows)

    def part(self, start: int, rows: tuple[Axis, ...]) -> Region:
        """Some of the rows: the first of them, and their axes with strides in rows."""
        ((_, stride),) = self.rows
        axes = tuple((size, step * stride) for size, step in rows)
        return Region(self.start + start * stride, axes, self.columns)


@dataclass(frozen=True)
class Part(OnDisk):
    """A matrix that is a region of a tensor; all of it where it is stored transposed."""

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
    @override
    def paths(self) -> tuple[str, ...]:
        return self.whole.paths

    @override
    def read(self) -> NDArray[Any]:
        if 0 in self.shape:
            return self.whole.elements(0, 0).reshape(self.shape)
        return self._cut(self.whole.elements)

    def of(self, values: NDArray[Any]) -> NDArray[Any]:
        """The same part of an array with the shape of the stored tensor."""
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
