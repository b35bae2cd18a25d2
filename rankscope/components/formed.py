"""`Formed`: a matrix that was put together in float64, with every error in it."""

from __future__ import annotations

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
    """A stored tensor, or what is made of several.

    Attributes
    ----------
    values
        The matrix, (m, n).
    dtype
        Format of the file that its first part is in.
    stored
        Matrices of the same shape whose rounding is in it entry by entry, each with what it is
        rounded to: W; and what W was before merges on record, which did not take its rounding away.
    beside
        Largest singular value that the rounding of other parts may bring, such as of B and A.
    relative
        By how much of itself the rounding of a number may change all that it multiplies: a row, a
        column, or the whole.
    error
        Bound on the Frobenius norm of what float64 rounded on the way.
    bits
        The fewest significant bits of the parts that ``stored`` does not name.
    made_of
        Of a factor that holds all products of two others' columns, or rows: the two. Their
        rounding is independent, and that of their products is not.
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
        """A tensor as it is stored: exact, but for what storing it rounded."""
        return cls(values, dtype, ((values, format_of(values, dtype)),))

    def rounding(self, rows: slice = ALL, columns: slice = ALL) -> Rounding:
        """Rounding in the matrix, or in the part of it that these rows and columns are.

        A row that is multiplied by 1 + ε is off by ε of itself, and diag(ε)·M by max|ε|·‖M‖₂.
        """
        total = Rounding.by_norm(self._beside(rows, columns), self.bits)
        for values, found in self.stored:
            total += rounding_of(values[rows, columns], found)
        return total

    @property
    def is_as_stored(self) -> bool:
        """Whether storing its entries is all that rounded them."""
        return not (self.relative or self.beside)

    def dense(self) -> Dense:
        """The matrix for its spectrum."""
        return Dense(self.values, self.dtype, self.rounding(), self.error)

    def exact(self) -> Formed:
        """The same with the stored matrices taken for what was meant, not for rounded ones."""
        return replace(self, stored=())

    def part(self, take: Callable[[Matrix], Matrix]) -> Formed:
        """Some of its entries; what is known of the whole alone is a bound for them."""
        stored = tuple((take(values), found) for values, found in self.stored)
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
            float(np.hypot(self._beside(), other._beside())),
            error=self.error + other.error + UNIT_ROUNDOFF * norm_of(total).value,
            bits=min(self.bits, other.bits),
        )


def multiplied_along(one: Formed, numbers: NDArray[np.float64], found: Format) -> Formed:
    """Every row, or column, or all of a matrix times a number of its own, stored in this format.

    Parameters
    ----------
    numbers
        Of a shape that broadcasts to that of the matrix.
    """
    scaled = scaled_along(one, numbers)
    return replace(
        scaled,
        relative=scaled.relative + 2.0**-found.significant_bits,
        bits=min(scaled.bits, found.significant_bits),
    )


def scaled_along(one: Formed, numbers: NDArray[np.float64]) -> Formed:
    """The same with numbers that no storage rounded."""
    with np.errstate(over="ignore", invalid="ignore"):
        values = numbers * one.values
    largest = float(np.abs(finite_part(numbers)).max(initial=0.0))
    powers = nearest_powers(numbers)
    return Formed(
        values,
        one.dtype,
        tuple((powers * stored, kind) for stored, kind in one.stored),
        largest * one.beside,
        one.relative,
        largest * one.error + UNIT_ROUNDOFF * norm_of(values).value,
        one.bits,
        None if one.made_of is None else (scaled_along(one.made_of[0], numbers), one.made_of[1]),
    )


def nearest_powers(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """The powers of two next to numbers, by which the spacing of a format is moved with them.

    The true spacing of a number times x is x times its own; taken by a power of two it is off by
    √2 at most, which is within the margin of the noise floor.
    """
    sizes = np.abs(finite_part(numbers))
    exponents = np.round(np.log2(sizes, out=np.full(sizes.shape, -np.inf), where=sizes > 0))
    return np.asarray(np.exp2(np.clip(exponents, -np.inf, 1000)), np.float64)
