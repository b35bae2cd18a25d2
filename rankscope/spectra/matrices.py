"""The kinds of matrix that have a spectrum: `Dense`, and the products `LowRank` and `Kronecker`.

A matrix that is formed from several tensors carries the errors of all of them: the rounding of each
stored part, which sets the noise floor, and what forming it in float64 rounded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import RankscopeError
from rankscope.spectra.bounds import Values, frobenius_bound, multiplying_bound, product_bound
from rankscope.spectra.formats import FORMATS, format_of
from rankscope.spectra.rounding import Rounding, rounding_of
from rankscope.spectra.spectrum import Cosine, Norm, Sparsity

Matrix = NDArray[Any]
BLOCK = 2**20  # entries at a time, so that no float64 copy of a whole weight is made


def as_array(given: Any) -> Matrix:
    """The numbers of an array, or of a tensor of torch wherever it is, without its gradient.

    Those in a format that numpy lacks become float32, which holds all bfloat16 and float8 numbers.

    Examples
    --------
    >>> import torch
    >>> as_array(torch.nn.Parameter(torch.eye(2, dtype=torch.bfloat16)))
    array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    if isinstance(given, np.ndarray) or not hasattr(given, "detach"):
        return np.asarray(given)
    tensor = given.detach().cpu().resolve_conj().resolve_neg()
    try:
        return np.asarray(tensor.numpy())
    except TypeError:  # numpy has no such format
        return np.asarray(tensor.float().numpy())


@dataclass(frozen=True)
class Dense:
    """A matrix in memory, with what is known about the rounding of its entries.

    `Dense.stored` makes one from an array.

    Attributes
    ----------
    values
        The entries, shape ``(m, n)``.
    dtype
        Format that the entries were stored in, which may be coarser than that of the array:
        bfloat16 weights are held as float32.
    rounding
        The rounding when the entries were stored; it sets the noise floor.
    error
        Bound on the Frobenius norm of the rounding error in computing ``values``.
    before
        For a change: the Frobenius norm of the matrix that changed.
    cosine
        For a change: its cosine with the change before it.
    entries
        How sparse the entries are, if that was requested.
    is_ordinary
        Whether the entries came from a narrower format than the float64 that they are held in, so
        that their squares are within its range.

    Examples
    --------
    A rank-1 matrix that was rounded to 8 significant bits, and is held in more:

    >>> import numpy as np, rankscope as rs
    >>> rng = np.random.default_rng(0)
    >>> exact = np.outer(rng.normal(size=64), rng.normal(size=64)).astype(np.float32)
    >>> rounded = (exact.view(np.uint32) + 0x8000 & 0xFFFF0000).view(np.float32)
    >>> found = rs.spectrum(rs.Dense.stored(rounded))
    >>> found.significant_bits
    8
    >>> int((found.lower > found.noise_floor).sum()), int((found.values > 0).sum())
    (1, 64)
    """

    values: Matrix
    dtype: str
    rounding: Rounding
    error: float = 0.0
    before: Norm | None = None
    cosine: Cosine | None = None
    entries: Sparsity | None = None
    is_ordinary: bool = False

    @classmethod
    def stored(cls, values: Matrix, dtype: str | None = None) -> Dense:
        """Entries that were rounded to nearest in ``dtype`` (by default that of the array).

        If their values fit a coarser format, such as bfloat16 saved as float32, they count as
        rounded to that format.
        """
        values = as_array(values)
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

    An adapter's delta has at most as many nonzero singular values as inner dimensions. Kept as
    factors, the others are exactly zero. Multiplied out, they come back as rounding noise, and the
    condition number becomes the ratio of a number to that noise.

    A leading axis on both factors makes a stack of products, such as one for each head.

    Attributes
    ----------
    left, right
        The factors, shapes ``(m, r)`` and ``(r, n)``, or ``(h, m, r)`` and ``(h, r, n)``.
    dtype
        Format that the factors were stored in.
    floor, error
        The largest singular value that rounding of the stored factors may produce, and a bound on
        the Frobenius norm of the error in the product from forming the factors in float64: one
        number for all products, or one for each.
    significant_bits
        The fewest of any factor.
    before
        For changes: the Frobenius norms of the matrices that changed, one for each product.
    cosine
        For a single change: its cosine with the change before it.
    is_scaled
        Whether this is the matrix itself, rather than the matrix divided by an unknown factor.

    Raises
    ------
    ValueError
        If the inner dimensions or the numbers of stacked factors differ.

    Examples
    --------
    >>> import numpy as np, rankscope as rs
    >>> rng = np.random.default_rng(0)
    >>> update = rs.LowRank(rng.normal(size=(64, 4)), rng.normal(size=(4, 256)))
    >>> update.shape, rs.singular_values(update).shape  # the other 60 are zero
    ((64, 256), (4,))
    >>> rs.condition_number(rs.singular_values(update.multiplied())) > 1e13  # noise
    True
    """

    left: Matrix
    right: Matrix
    dtype: str = "float64"
    floor: float | Values = 0.0
    error: float | Values = 0.0
    significant_bits: int = FORMATS["float64"].significant_bits
    before: tuple[Norm, ...] = ()
    cosine: Cosine | None = None
    is_scaled: bool = True

    def __post_init__(self) -> None:
        for name in ("left", "right"):
            object.__setattr__(self, name, as_array(getattr(self, name)))
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
        """Inner dimension, which caps the rank."""
        return int(self.left.shape[-1])

    def multiplied(self) -> Matrix:
        """The product, formed in float64."""
        return np.asarray(self.left, np.float64) @ np.asarray(self.right, np.float64)

    def dense(self) -> Dense:
        """A single product multiplied out, with the errors of its factors and of forming it."""
        sizes = norm_of(self.left).value, norm_of(self.right).value
        return Dense(
            self.multiplied(),
            self.dtype,
            Rounding.by_norm(float(self.floor), self.significant_bits),
            error=float(self.error) + multiplying_bound(*sizes, inner=self.inner),
        )

    def stack(self) -> LowRank:
        """The stack; a single product becomes a stack of one."""
        if self.left.ndim == 3:
            return self
        return replace(self, left=self.left[None], right=self.right[None])

    @property
    def floors(self) -> Values:
        """The floor of each product."""
        return np.zeros(self._count) + self.floor

    @property
    def errors(self) -> Values:
        """The error of each product."""
        return np.zeros(self._count) + self.error

    @property
    def _count(self) -> int:
        return len(self.left) if self.left.ndim == 3 else 1

    def norms(self) -> tuple[Norm, ...]:
        """Frobenius norm of each product, from its triangular factors; not multiplied out."""
        stack = self.stack()
        left, right = (np.asarray(x, np.float64) for x in (stack.left, stack.right.mT))
        cores = triangular(left) @ triangular(right).mT
        norms = []
        for core, tall, wide, error in zip(cores, left, right, stack.errors, strict=True):
            sizes = norm_of(tall).value, norm_of(wide).value
            bound = product_bound(*sizes, self.shape, inner=self.inner) * self.inner**0.5
            norms.append(Norm(norm_of(core).value, bound + float(error)))
        return tuple(norms)


def triangular(factors: Values) -> Values:
    """R of the QR decomposition of each of a stack of matrices."""
    transposed = np.linalg.qr(factors, mode="raw")[0][..., : factors.shape[-1]]
    return np.where(np.tri(*transposed.shape[-2:], dtype=np.bool_), transposed, 0.0).mT


def norm_of(values: Matrix, error: float = 0.0) -> Norm:
    """Frobenius norm of the finite entries of a matrix that is known up to ``error`` in that norm.

    The finite ones alone: one head of a weight may have a spectrum where another holds NaN.
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
    """The matrix with zeros instead of NaN and infinity."""
    finite = np.isfinite(values)
    return values if finite.all() else np.where(finite, values, 0)


def frobenius_norms(factors: Matrix) -> Values:
    """Frobenius norm of a factor, or of each in a stack; entries may be any float64."""
    units = _units(factors)
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.asarray(factors, np.float64) / units[..., None, None]
        return np.asarray(np.linalg.norm(scaled, axis=(-2, -1)) * units)


def _units(factors: Matrix) -> Values:
    largest = np.abs(factors).max(axis=(-2, -1), initial=0.0)
    return np.where((largest > 0) & np.isfinite(largest), largest, 1.0).astype(np.float64)


def spectral_norms(factors: Matrix) -> Values:
    """Spectral norm of each factor in a stack, to a few digits, for noise floors."""
    units, norms = _units(factors), []
    for factor, unit in zip(factors, units, strict=True):
        scaled = np.asarray(factor, np.float64) / unit
        if not np.isfinite(scaled).all():
            norms.append(np.nan)
            continue
        wide = scaled if scaled.shape[0] <= scaled.shape[1] else scaled.T
        squares = np.linalg.eigvalsh(wide @ wide.T) if len(wide) else np.zeros(1)
        norms.append(unit * max(float(squares[-1]), 0.0) ** 0.5)
    return np.asarray(norms, np.float64)


@dataclass(frozen=True)
class Kronecker:
    """The Kronecker product ``first ⊗ second``, kept as its two factors.

    Its singular values are those of ``first`` times those of ``second``, each with each.

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
        """The product, formed in float64."""
        first, second = (
            factor.multiplied() if isinstance(factor, LowRank) else factor.values
            for factor in (self.first, self.second)
        )
        return np.kron(np.asarray(first, np.float64), np.asarray(second, np.float64))


Decomposable = Dense | LowRank | Kronecker
