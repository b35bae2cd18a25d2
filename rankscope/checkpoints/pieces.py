"""`Pieces`: a tensor that the processes of a training stored in pieces, each the one it held."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from rankscope.checkpoints.tensors import OnDisk, Tensor
from rankscope.errors import RankscopeError


@dataclass(frozen=True)
class Piece:
    """A box of elements of a larger tensor: where it begins in every axis, and its elements."""

    start: tuple[int, ...]
    tensor: Tensor

    @property
    def stop(self) -> tuple[int, ...]:
        """Where it ends in every axis."""
        return tuple(a + n for a, n in zip(self.start, self.tensor.shape, strict=True))

    @property
    def columns(self) -> tuple[slice, ...]:
        """Where it is in every axis but the first."""
        return tuple(map(slice, self.start[1:], self.stop[1:]))


@dataclass(frozen=True)
class Pieces(OnDisk):
    """A tensor of at least one axis that is stored in pieces. Made and checked by `pieces_of`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]

    @property
    @override
    def paths(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(path for piece in self.pieces for path in piece.tensor.paths))

    @override
    def read(self) -> NDArray[Any]:
        return self.elements(0, math.prod(self.shape)).reshape(self.shape)

    @override
    def elements(self, start: int, stop: int) -> NDArray[Any]:
        row = math.prod(self.shape[1:])
        if stop <= start:
            return self.pieces[0].tensor.elements(0, 0)
        first, last = start // row, -(-stop // row)
        whole: NDArray[Any] | None = None
        for at, columns, values in self._iter_rows(first, last):
            if whole is None:
                whole = np.empty((last - first, *self.shape[1:]), dtype=values.dtype)
            whole[(slice(at, at + len(values)), *columns)] = values
        if whole is None:
            message = f"does not have elements {start} to {stop}"
            raise RankscopeError(message, path=self.paths[0], tensor=self.name)
        return whole.reshape(-1)[start - first * row : stop - first * row]

    def _iter_rows(
        self, first: int, last: int
    ) -> Iterator[tuple[int, tuple[slice, ...], NDArray[Any]]]:
        """What each piece holds of these rows: the first of them, its columns, its values."""
        for piece in self.pieces:
            top = piece.start[0]
            begin, end = max(first, top), min(last, piece.stop[0])
            if begin < end:
                width = math.prod(piece.tensor.shape[1:])
                values = piece.tensor.elements((begin - top) * width, (end - top) * width)
                shape = end - begin, *piece.tensor.shape[1:]
                yield begin - first, piece.columns, values.reshape(shape)


@dataclass(frozen=True)
class JoinedPieces(Pieces):
    """Pieces that are each a tensor of their own in the account of the files."""

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """The stored tensors."""
        return tuple(piece.tensor for piece in self.pieces)


def pieces_of(
    name: str,
    shape: tuple[int, ...],
    pieces: list[Piece],
    *,
    path: str,
    kind: type[Pieces] = Pieces,
) -> Tensor:
    """The tensor made of these pieces; a piece that is all of it is returned as it is.

    Parameters
    ----------
    path
        The file that lists the pieces, for errors.
    kind
        Class of the tensor that is made.

    Raises
    ------
    RankscopeError
        If they do not hold every element of the shape exactly once, all in one format.
    """

    def fault(message: str) -> RankscopeError:
        return RankscopeError(message, path=path, tensor=name)

    for piece in pieces:
        fits = len(piece.start) == len(piece.tensor.shape) == len(shape)
        if not fits or any(stop > size for stop, size in zip(piece.stop, shape, strict=True)):
            raise fault(
                f"its piece of shape {list(piece.tensor.shape)} at {list(piece.start)} "
                f"reaches beyond its shape {list(shape)}"
            )
    # Where there are more processes than rows, the last of them hold empty pieces.
    held = [piece for piece in pieces if 0 not in piece.tensor.shape] or pieces[:1]
    count = sum(math.prod(piece.tensor.shape) for piece in held)
    if not held or count != math.prod(shape) or _overlap(held):
        raise fault(f"its pieces do not make up its shape {list(shape)}")
    if len({piece.tensor.dtype for piece in held}) > 1:
        raise fault("its pieces differ in dtype")
    if held[0].tensor.shape == shape:
        return held[0].tensor
    return kind(name, held[0].tensor.dtype, shape, tuple(held))


def _overlap(pieces: list[Piece]) -> bool:
    """Whether any two of them share an element."""
    starts = np.array([piece.start for piece in pieces])
    stops = np.array([piece.stop for piece in pieces])
    return any(
        ((starts[i] < stops[i + 1 :]) & (starts[i + 1 :] < stops[i])).all(axis=1).any()
        for i in range(len(pieces) - 1)
    )
