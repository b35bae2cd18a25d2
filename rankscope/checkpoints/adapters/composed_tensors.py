"""Tensors that no file holds: made, in float64, of several that files do hold."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankscope.checkpoints.tensors import StoredTensor, Tensor
from rankscope.errors import RankscopeError

Values = NDArray[np.float64]
AS_FLOATS = {"int64": "float64", "int32": "float32"}  # of the same size, so that bits are read


class Composed(ABC):
    """A matrix, (outputs, inputs) or a factor of it, that is computed when it is read."""

    @property
    @abstractmethod
    def parts(self) -> tuple[Tensor, ...]:
        """What it is made of, the one that names it first."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""

    @abstractmethod
    def read(self) -> Values:
        """Read the parts and put them together."""

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
        """Compute all, and take these of its elements, in row-major order."""
        return self.read().reshape(-1)[start:stop]


@dataclass(frozen=True)
class ScaledRows(Composed):
    """A matrix whose every row is multiplied by a number of its own: diag(d)·M."""

    matrix: Tensor
    numbers: Tensor

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """The matrix and the numbers."""
        return self.matrix, self.numbers

    @property
    def shape(self) -> tuple[int, int]:
        """That of the matrix."""
        return self.matrix.shape[0], self.matrix.shape[1]

    def read(self) -> Values:
        """Multiply."""
        numbers = self.numbers.read().astype(np.float64).reshape(-1, 1)
        return self.matrix.read().astype(np.float64) * numbers


@dataclass(frozen=True)
class KhatriRao(Composed):
    """All products of a column of one matrix with a column of another, entry by entry.

    (L₁R₁) ∘ (L₂R₂), entry by entry, is the product of that of L₁ and L₂ with that of R₁ and R₂ by
    rows (``by_rows``): of rank r₁·r₂ at most.
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
        """The common side of the two, and the product of their other sides."""
        first, second = self.first.shape, self.second.shape
        if self.by_rows:
            return first[0] * second[0], first[1]
        return first[0], first[1] * second[1]

    def read(self) -> Values:
        """Multiply."""
        first, second = (part.read().astype(np.float64) for part in self.parts)
        return self.of(first, second)

    def of(self, first: NDArray[np.floating], second: NDArray[np.floating]) -> Values:
        """The same of these values."""
        first, second = first.astype(np.float64), second.astype(np.float64)
        if self.by_rows:
            return (first[:, None, :] * second[None, :, :]).reshape(self.shape)
        return (first[:, :, None] * second[:, None, :]).reshape(self.shape)


@dataclass(frozen=True)
class Product(Composed):
    """A weight that is a product by construction, scale·left·right; it can be had factored."""

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
        """Read both, the scale in the left one."""
        return self.scale * self.left.read().astype(np.float64), self.right.read().astype(
            np.float64
        )

    def read(self) -> Values:
        """Multiply."""
        left, right = self.factors()
        return left @ right


@dataclass(frozen=True)
class PlusSparse(Composed):
    """A product with a few entries of its own on top, as SLTrain has it."""

    product: Product
    places: Tensor  # in row-major order
    values: Tensor

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """The product, the places and the values."""
        return self.product, self.places, self.values

    @property
    def shape(self) -> tuple[int, int]:
        """That of the product."""
        return self.product.shape

    def read(self) -> Values:
        """Multiply and add."""
        return self.product.read() + self.sparse()

    def sparse(self) -> Values:
        """The entries of its own, in a matrix of zeros.

        Raises
        ------
        RankscopeError
            If a place is outside of the matrix.
        """
        whole, places = np.zeros(self.shape), whole_numbers(self.places)
        if places.size and not 0 <= places.min() <= places.max() < whole.size:
            message = f"has a place outside of a matrix of shape {list(self.shape)}"
            raise RankscopeError(message, path=self.places.paths[0], tensor=self.places.name)
        added = self.values.read().astype(np.float64).reshape(-1)
        np.add.at(whole.reshape(-1), places.reshape(-1), added)
        return whole


def is_composed(tensor: Tensor) -> bool:
    """Whether no file holds a tensor as it is."""
    return isinstance(tensor, Composed)


def holds_places(tensor: Tensor) -> bool:
    """Whether a tensor's whole numbers can be read."""
    return isinstance(tensor, StoredTensor) and tensor.dtype in AS_FLOATS


def whole_numbers(tensor: Tensor) -> NDArray[np.integer]:
    """Read whole numbers: as the bits of floating-point numbers of the same size."""
    if not isinstance(tensor, StoredTensor) or tensor.dtype not in AS_FLOATS:
        message = f"is stored as {tensor.dtype}, not as whole numbers that are read here"
        raise RankscopeError(message, path=tensor.paths[0], tensor=tensor.name)
    bits = dataclasses.replace(tensor, dtype=AS_FLOATS[tensor.dtype]).read()
    return np.ascontiguousarray(bits).view(tensor.dtype)
