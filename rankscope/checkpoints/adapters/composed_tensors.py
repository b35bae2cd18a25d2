"""Matrices that are computed, in float64, from several stored tensors when they are read."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankscope.checkpoints.tensors import StoredTensor, Tensor
from rankscope.errors import RankscopeError

Values = NDArray[np.float64]
AS_FLOATS = {"int64": "float64", "int32": "float32"}  # formats of the same size


class Composed(ABC):
    """A matrix (outputs, inputs), or a factor of one, that is computed when it is read."""

    @property
    @abstractmethod
    def parts(self) -> tuple[Tensor, ...]:
        """What it is made of; the first part gives its name."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""

    @abstractmethod
    def read(self) -> Values:
        """Read the parts and combine them."""

    @property
    def name(self) -> str:
        """Name of the first part."""
        return self.parts[0].name

    @property
    def dtype(self) -> str:
        """Format of the first part; the values themselves are float64."""
        return self.parts[0].dtype

    @property
    def paths(self) -> tuple[str, ...]:
        """Files of all parts, each once."""
        return tuple(dict.fromkeys(path for part in self.parts for path in part.paths))

    def elements(self, start: int, stop: int) -> Values:
        """Compute all of it, and take elements ``start:stop`` in row-major order."""
        return self.read().reshape(-1)[start:stop]


@dataclass(frozen=True)
class ScaledRows(Composed):
    """A matrix with each row multiplied by a number: diag(d)·M."""

    matrix: Tensor
    numbers: Tensor

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """The matrix and the numbers."""
        return self.matrix, self.numbers

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the matrix."""
        return self.matrix.shape[0], self.matrix.shape[1]

    def read(self) -> Values:
        """Multiply."""
        numbers = self.numbers.read().astype(np.float64).reshape(-1, 1)
        return self.matrix.read().astype(np.float64) * numbers


@dataclass(frozen=True)
class KhatriRao(Composed):
    """All elementwise products of a column of one matrix with a column of another.

    The elementwise product (L₁R₁) ∘ (L₂R₂) is that of L₁ and L₂, times that of R₁ and R₂ taken by
    rows (``by_rows``). So its rank is at most r₁·r₂.
    """

    first: Tensor
    second: Tensor
    by_rows: bool = False

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """Both."""
        return self.first, self.second

    @property
    def shape(self) -> tuple[int, int]:
        """The side that the two share, and the product of the other sides."""
        first, second = self.first.shape, self.second.shape
        if self.by_rows:
            return first[0] * second[0], first[1]
        return first[0], first[1] * second[1]

    def read(self) -> Values:
        """Multiply."""
        first, second = (part.read().astype(np.float64) for part in self.parts)
        return self.of(first, second)

    def of(self, first: NDArray[np.floating], second: NDArray[np.floating]) -> Values:
        """The same for these values."""
        first, second = first.astype(np.float64), second.astype(np.float64)
        if self.by_rows:
            return (first[:, None, :] * second[None, :, :]).reshape(self.shape)
        return (first[:, :, None] * second[:, None, :]).reshape(self.shape)


@dataclass(frozen=True)
class Product(Composed):
    """A weight that is a product by construction, scale·left·right. It can be read in factors."""

    left: Tensor  # (out, r)
    right: Tensor  # (r, in)
    scale: float = 1.0

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """Both factors."""
        return self.left, self.right

    @property
    def shape(self) -> tuple[int, int]:
        """Outputs and inputs."""
        return self.left.shape[0], self.right.shape[1]

    @property
    def inner(self) -> int:
        """The inner dimension, which caps the rank."""
        return self.right.shape[0]

    def factors(self) -> tuple[Values, Values]:
        """Read both factors; the left one includes the scale."""
        return self.scale * self.left.read().astype(np.float64), self.right.read().astype(
            np.float64
        )

    def read(self) -> Values:
        """Multiply."""
        left, right = self.factors()
        return left @ right


@dataclass(frozen=True)
class PlusSparse(Composed):
    """A product plus a few stored entries, as in SLTrain."""

    product: Product
    positions: Tensor  # in row-major order
    values: Tensor

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """The product, the positions and the values."""
        return self.product, self.positions, self.values

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the product."""
        return self.product.shape

    def read(self) -> Values:
        """Multiply and add."""
        return self.product.read() + self.sparse()

    def sparse(self) -> Values:
        """The stored entries in a matrix of zeros.

        Raises
        ------
        RankscopeError
            If a position is outside of the matrix.
        """
        whole, positions = np.zeros(self.shape), whole_numbers(self.positions)
        if positions.size and not 0 <= positions.min() <= positions.max() < whole.size:
            message = f"has a position outside of a matrix of shape {list(self.shape)}"
            raise RankscopeError(message, path=self.positions.paths[0], tensor=self.positions.name)
        added = self.values.read().astype(np.float64).reshape(-1)
        np.add.at(whole.reshape(-1), positions.reshape(-1), added)  # a position may repeat
        return whole


def is_composed(tensor: Tensor) -> bool:
    """Whether a tensor is computed from several."""
    return isinstance(tensor, Composed)


def holds_whole_numbers(tensor: Tensor) -> bool:
    """Whether a tensor holds whole numbers of a format that can be read here."""
    return isinstance(tensor, StoredTensor) and tensor.dtype in AS_FLOATS


def whole_numbers(tensor: Tensor) -> NDArray[np.integer]:
    """Read whole numbers, as the bits of floating-point numbers of the same size."""
    if not isinstance(tensor, StoredTensor) or tensor.dtype not in AS_FLOATS:
        message = f"is stored as {tensor.dtype}, not as int32 or int64"
        raise RankscopeError(message, path=tensor.paths[0], tensor=tensor.name)
    bits = dataclasses.replace(tensor, dtype=AS_FLOATS[tensor.dtype]).read()
    return np.ascontiguousarray(bits).view(tensor.dtype)
