"""The kinds of matrix that have a spectrum: `Dense`, and the products `LowRank` and `Kronecker`.

What is put together of several tensors carries the errors of all of them: the rounding of each
stored part, which sets the noise floor, and what putting it together in float64 rounded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import RankscopeError
from rankscope.spectra.bounds import Values, frobenius_bound, product_bound
from rankscope.spectra.formats import FORMATS, format_of
from rankscope.spectra.rounding import Rounding, rounding_of
from rankscope.spectra.spectrum import Norm

Matrix = NDArray[Any]
BLOCK = 2**20  # entries at a time, so that no float64 copy of a whole weight is made


@dataclass(frozen=True)
class Dense:
    """A matrix in memory, with what is known of the rounding in its entries.

    Attributes
    ----------
    dtype
        Format that the entries were stored in, which may be coarser than that of the array:
        bfloat16 weights are held as float32.
    error
        Bound on the spectral norm of what the arithmetic that made ``values`` rounded.
    before
        Of a change: the Frobenius norm of what changed.
    """

    values: Matrix  # (m, n)
    dtype: str
    rounding: Rounding
    error: float = 0.0
    before: Norm | None = None

    @classmethod
    def stored(cls, values: Matrix, dtype: str | None = None) -> Dense:
        """Take the entries as rounded to nearest in ``dtype`` (that of the array by default).

        Or in a coarser format that they turn out to be of: bfloat16 saved as float32.
        """
        dtype = values.dtype.name if dtype is None else dtype
        if dtype not in FORMATS:
            raise RankscopeError(
                f"a matrix of {dtype} has no spectrum here: give one of {', '.join(FORMATS)}"
            )
        return cls(values, dtype, rounding_of(values, format_of(values, dtype)))

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
    dtype
        Format that the factors were stored in.
    floor, error
        Largest singular value that the rounding of the stored factors may bring, and bound on the
        spectral norm of what making the factors in float64 rounded: one number, or one a product.
    significant_bits
        The fewest that a factor has.
    before
        Of a change: the Frobenius norm of what changed, one a product.
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
    floor: float | Values = 0.0
    error: float | Values = 0.0
    significant_bits: int = FORMATS["float64"].significant_bits
    before: tuple[Norm, ...] = ()
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

    def stack(self) -> LowRank:
        """Return a stack of one if this is a single product."""
        if self.left.ndim == 3:
            return self
        return replace(self, left=self.left[None], right=self.right[None])

    @property
    def floors(self) -> Values:
        """The floor of each product."""
        return np.broadcast_to(self.floor, len(self.stack().left))

    @property
    def errors(self) -> Values:
        """The error of each product."""
        return np.broadcast_to(self.error, len(self.stack().left))

    def norms(self) -> tuple[Norm, ...]:
        """Frobenius norm of each product, from triangular factors: not multiplied out."""
        stack = self.stack()
        left, right = (np.asarray(x, np.float64) for x in (stack.left, stack.right.mT))
        cores = _triangular(left) @ _triangular(right).mT
        found = []
        for core, tall, wide, error in zip(cores, left, right, stack.errors, strict=True):
            sizes = norm_of(tall).value, norm_of(wide).value
            bound = product_bound(*sizes, self.shape, inner=self.inner) * self.inner**0.5
            found.append(Norm(norm_of(core).value, bound + float(error)))
        return tuple(found)


def _triangular(factors: Values) -> Values:
    return np.asarray(np.linalg.qr(factors, mode="r"))


def norm_of(values: Matrix, error: float = 0.0) -> Norm:
    """Frobenius norm of a matrix that is known up to ``error``, in that norm.

    Of its finite entries: a head of a weight may have a spectrum where another one holds NaN.
    """
    values = finite_part(values)
    largest = float(np.abs(values).max(initial=0.0))
    if not largest:
        return Norm(largest, error)
    total = 0.0
    rows = max(1, BLOCK // max(values.shape[-1], 1))
    for start in range(0, len(values), rows):
        block = np.divide(values[start : start + rows], largest, dtype=np.float64)
        total += float(np.vdot(block, block))
    norm = largest * total**0.5
    return Norm(norm, error + frobenius_bound(norm, values.size))


def finite_part(values: Matrix) -> Matrix:
    """The matrix with zeros in the place of NaN and infinity."""
    finite = np.isfinite(values)
    return values if finite.all() else np.where(finite, values, 0)


def frobenius_norms(factors: Matrix) -> Values:
    """Frobenius norm of a factor, or of each of a stack, of factors that may hold any float64."""
    units = _units(factors)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.asarray(factors, np.float64) / units[..., None, None]
        return np.asarray(np.linalg.norm(scaled, axis=(-2, -1)) * units)


def _units(factors: Matrix) -> Values:
    largest = np.abs(factors).max(axis=(-2, -1), initial=0.0)
    return np.where((largest > 0) & np.isfinite(largest), largest, 1.0).astype(np.float64)


def spectral_norms(factors: Matrix) -> Values:
    """Spectral norm of each of a stack of factors, to a few digits, for noise floors."""
    units, found = _units(factors), []
    for factor, unit in zip(factors, units, strict=True):
        scaled = np.asarray(factor, np.float64) / unit
        if not np.isfinite(scaled).all():
            found.append(np.nan)
            continue
        wide = scaled if scaled.shape[0] <= scaled.shape[1] else scaled.T
        squares = np.linalg.eigvalsh(wide @ wide.T) if len(wide) else np.zeros(1)
        found.append(unit * max(float(squares[-1]), 0.0) ** 0.5)
    return np.asarray(found, np.float64)


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
