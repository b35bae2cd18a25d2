"""The kinds of matrix that have a spectrum: `Dense`, and the products `LowRank` and `Kronecker`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import RankscopeError
from rankscope.spectra.rounding import FORMATS, Rounding, rounding_of

Matrix = NDArray[Any]


@dataclass(frozen=True)
class Dense:
    """A matrix in memory, with what is known of the rounding in its entries.

    ``dtype`` names the format that the entries were stored in, which may be coarser than that of
    the array: bfloat16 weights are held as float32.
    """

    values: Matrix  # (m, n)
    dtype: str
    rounding: Rounding

    @classmethod
    def stored(cls, values: Matrix, dtype: str | None = None) -> Dense:
        """Take the entries as rounded to nearest in ``dtype`` (that of the array by default)."""
        dtype = values.dtype.name if dtype is None else dtype
        if dtype not in FORMATS:
            raise RankscopeError(
                f"a matrix of {dtype} has no spectrum here: give one of {', '.join(FORMATS)}"
            )
        return cls(values, dtype, rounding_of(values, dtype))

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.values.shape[0], self.values.shape[1]


@dataclass(frozen=True)
class LowRank:
    """The product ``left @ right``, kept as its two factors.

    An adapter's delta has at most as many nonzero singular values as it has inner dimensions.
    Keeping the factors keeps the other ones exactly zero: multiplied out, they come back as
    rounding noise, and the condition number becomes the ratio of a number to that noise.

    A leading axis on both factors makes it a stack of products, such as one for each head.

    Attributes
    ----------
    is_scaled
        Whether this is the matrix itself, and not the matrix over a factor that nobody knows.

    Raises
    ------
    ValueError
        If the inner dimensions or the numbers of stacked factors differ.
    """

    left: Matrix  # (m, r) or (h, m, r)
    right: Matrix  # (r, n) or (h, r, n)
    dtype: str = "float64"
    is_scaled: bool = True

    def __post_init__(self) -> None:
        if self.left.ndim not in (2, 3) or self.left.ndim != self.right.ndim:
            raise ValueError(
                f"factors have two axes, or three for a stack: left is {self.left.shape}, "
                f"right is {self.right.shape}"
            )
        if self.left.shape[:-2] != self.right.shape[:-2]:
            raise ValueError(f"{len(self.left)} left factors are stacked, {len(self.right)} right")
        if self.left.shape[-1] != self.right.shape[-2]:
            raise ValueError(
                f"inner dimensions differ: left is {self.left.shape}, right is {self.right.shape}"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of one product."""
        return self.left.shape[-2], self.right.shape[-1]

    @property
    def inner(self) -> int:
        """The inner dimension, which caps the rank."""
        return int(self.left.shape[-1])

    def multiplied(self) -> Matrix:
        """The product itself, in float64."""
        return np.asarray(self.left, np.float64) @ np.asarray(self.right, np.float64)


@dataclass(frozen=True)
class Kronecker:
    """The Kronecker product ``first ⊗ second``, kept as its two factors.

    Its singular values are all products of one of ``first`` with one of ``second``.

    Attributes
    ----------
    is_scaled
        As for `LowRank`.
    """

    first: Dense | LowRank
    second: Dense | LowRank
    dtype: str = "float64"
    is_scaled: bool = True

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        (m, n), (k, p) = self.first.shape, self.second.shape
        return m * k, n * p

    def multiplied(self) -> Matrix:
        """The product itself, in float64."""
        first, second = (
            factor.multiplied() if isinstance(factor, LowRank) else factor.values
            for factor in (self.first, self.second)
        )
        return np.kron(np.asarray(first, np.float64), np.asarray(second, np.float64))


Decomposable = Dense | LowRank | Kronecker
