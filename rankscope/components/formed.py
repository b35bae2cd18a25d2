"""`Formed`: a matrix that was formed in float64, with every error in it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rankscope.spectra.bounds import UNIT_ROUNDOFF
from rankscope.spectra.formats import FORMATS, Format, format_of
from rankscope.spectra.matrices import Dense, Matrix, finite_part, norm_of, spectral_norms
from rankscope.spectra.rounding import Rounding, rounding_of

ALL = slice(None)
MOST_BITS = FORMATS["float64"].significant_bits


@dataclass(frozen=True)
class Formed:
    """A stored tensor, or a matrix formed from several.

    Attributes
    ----------
    values
        The matrix, (m, n).
    dtype
        Storage format of its first part.
    stored
        Matrices of the same shape whose rounding is in it entry by entry, each with the format that
        it is rounded to: W, and W before merges on record, which did not remove its rounding.
    beside
        Largest singular value that the rounding of other parts, such as B and A, may produce.
    relative
        Relative rounding of a number that multiplies a row, a column or the whole.
    error
        Bound on the Frobenius norm of what float64 rounded on the way.
    bits
        The fewest significant bits of any part that is not in ``stored``.
    made_of
        For a factor that holds all products of two matrices' columns, or rows: these two. Their
        rounding is independent entry by entry; that of the products is not.
    """

    values: Matrix
    dtype: str
    stored: tuple[tuple[Matrix, Format], ...] = ()
    beside: float = 0.0
    relative: float = 0.0
    error: float = 0.0
    bits: int = MOST_BITS
    made_of: tuple[Formed, Formed] | None = None

    @classmethod
    def read(cls, values: Matrix, dtype: str) -> Formed:
        """A tensor as it is stored: exact except for what storing it rounded."""
        return cls(values, dtype, ((values, format_of(values, dtype)),))

    def rounding(self, rows: slice = ALL, columns: slice = ALL) -> Rounding:
        """Rounding in the matrix, or in these rows and columns of it.

        Where rows are multiplied by 1 + ε, the matrix M is off by diag(ε)·M: at most max|ε|·‖M‖₂.
        """
        total = Rounding.by_norm(self._beside(rows, columns), self.bits)
        for values, kind in self.stored:
            total += rounding_of(values[rows, columns], kind)
        return total

    @property
    def is_as_stored(self) -> bool:
        """Whether nothing but storing its entries rounded them."""
        return not (self.relative or self.beside)

    @property
    def is_plain(self) -> bool:
        """Whether it is a single stored tensor, or entries of one."""
        is_single = len(self.stored) == 1 and self.bits == MOST_BITS and self.made_of is None
        return is_single and self.is_as_stored and not self.error

    def dense(self) -> Dense:
        """The matrix for its spectrum."""
        return Dense(self.values, self.dtype, self.rounding(), self.error)

    def exact(self) -> Formed:
        """The same matrix with its stored entries counted as exact rather than rounded."""
        return replace(self, stored=())

    def part(self, take: Callable[[Matrix], Matrix]) -> Formed:
        """Some of its entries; bounds on the whole are bounds on these too."""
        stored = tuple((take(values), kind) for values, kind in self.stored)
        return replace(self, values=take(self.values), stored=stored, made_of=None)

    def _beside(self, rows: slice = ALL, columns: slice = ALL) -> float:
        if not self.relative:
            return self.beside
        part = finite_part(self.values[rows, columns])
        return float(np.hypot(self.beside, self.relative * spectral_norms(part[None])[0]))

    def __add__(self, other: Formed) -> Formed:
        with np.errstate(over="ignore", invalid="ignore"):
            total = self.values.astype(np.float64) + other.values
        return Formed(
            total,
            self.dtype,
            (*self.stored, *other.stored),
            beside=float(np.hypot(self._beside(), other._beside())),
            error=self.error + other.error + UNIT_ROUNDOFF * norm_of(total).value,
            bits=min(self.bits, other.bits),
        )


def multiplied_along(one: Formed, numbers: NDArray[np.float64], stored: Format) -> Formed:
    """A matrix times numbers for each row, each column, or the whole, stored in this format.

    Parameters
    ----------
    numbers
        Of a shape that broadcasts to that of the matrix.
    """
    scaled = scaled_along(one, numbers)
    return replace(
        scaled,
        relative=scaled.relative + 2.0**-stored.significant_bits,
        bits=min(scaled.bits, stored.significant_bits),
    )


def times_stored(
    one: Formed, gain: Matrix, dtype: str, numbers_of: Callable[[Matrix], Matrix]
) -> Formed:
    """The same with numbers that are proportional to those of a tensor, and carry its rounding."""
    formed = multiplied_along(one, numbers_of(gain), format_of(gain, dtype))
    near_zero = near_zero_floor(one, gain, dtype, numbers_of)
    return replace(formed, beside=math.hypot(formed.beside, near_zero))


def near_zero_floor(
    one: Formed, gain: Matrix, dtype: str, numbers_of: Callable[[Matrix], Matrix]
) -> float:
    """Rounding of the stored numbers below the smallest normal one, beyond `Formed.relative`.

    From there to zero the spacing is constant: each errs as if it were the smallest normal one.
    """
    stored = format_of(gain, dtype)
    least = 2.0**stored.smallest_exponent
    is_small = np.abs(gain) < least
    if not is_small.any():
        return 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        as_if = numbers_of(np.where(is_small, least, 0.0)) * one.values
    return float(2.0**-stored.significant_bits * spectral_norms(finite_part(as_if)[None])[0])


def centred(one: Formed) -> Formed:
    """The matrix without the mean of its rows, as LayerNorm sees the outputs of a map.

    Subtracting the mean is a projection, through which no error grows: with Gaussian errors E, the
    norm of D·P·E is at most that of D·E on average, for any diagonal D.
    """
    size = norm_of(one.values).value
    with np.errstate(over="ignore", invalid="ignore"):
        values = one.values.astype(np.float64)
        values = values - values.mean(axis=0)
    error = one.error + (len(values) + 2) * UNIT_ROUNDOFF * size
    return replace(one, values=values, beside=one._beside(), relative=0.0, error=error)


def times_gain(one: Formed, gain: Matrix, dtype: str, *, offset: float = 0.0) -> Formed:
    """The rows times a gain, stored in a format, that the model adds ``offset`` to.

    A gain whose entries are all equal, as at the start of a training, does not show how it was
    rounded; it counts as rounded like the matrix, or as its file's format if that is coarser.
    """
    column = gain.astype(np.float64).reshape(-1, 1)
    stored = format_of(gain, dtype)
    if len(np.unique(gain)) == 1 and one.stored:
        stored = min(FORMATS[dtype], one.stored[0][1])
    scaled = scaled_along(one, offset + column)
    off = np.maximum(np.abs(column), 2.0**stored.smallest_exponent) * 2.0**-stored.significant_bits
    with np.errstate(over="ignore", invalid="ignore"):
        moved = finite_part(off * one.values)
    return replace(
        scaled,
        beside=math.hypot(scaled.beside, float(spectral_norms(moved[None])[0])),
        error=scaled.error + UNIT_ROUNDOFF * norm_of(scaled.values).value,
        bits=min(scaled.bits, stored.significant_bits),
    )


def scaled_along(one: Formed, numbers: NDArray[np.float64]) -> Formed:
    """The same with exact numbers."""
    with np.errstate(over="ignore", invalid="ignore"):
        values = numbers * one.values
    largest = float(np.abs(finite_part(numbers)).max(initial=0.0))
    powers = nearest_powers(numbers)
    made_of = one.made_of and (scaled_along(one.made_of[0], numbers), one.made_of[1])
    return Formed(
        values,
        one.dtype,
        tuple(scaled_entries(*entries, powers) for entries in one.stored),
        beside=largest * one.beside,
        relative=one.relative,
        error=largest * one.error + UNIT_ROUNDOFF * norm_of(values).value,
        bits=one.bits,
        made_of=made_of,
    )


def scaled_entries(
    values: Matrix, stored: Format, powers: NDArray[np.float64]
) -> tuple[Matrix, Format]:
    """Stored entries times powers of two: the spacing of each is multiplied with it.

    Below the smallest normal number the spacing is that of this number, wherever it is moved to.
    """
    least = 2.0**stored.smallest_exponent
    normal = np.where(np.abs(values) < least, least, values)
    return powers * normal, stored._replace(smallest_exponent=FORMATS["float64"].smallest_exponent)


def nearest_powers(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """The powers of two nearest to numbers, which scale the spacing of a format with them.

    The rounding of an entry times x is x times its own. Scaled by a power of two instead, it is off
    by at most √2, which the margin of the noise floor covers.
    """
    sizes = np.abs(finite_part(numbers))
    exponents = np.round(np.log2(sizes, out=np.full(sizes.shape, -np.inf), where=sizes > 0))
    return np.asarray(np.exp2(np.clip(exponents, -np.inf, 1000)), np.float64)
