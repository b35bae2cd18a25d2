"""What rounding to a storage format puts into a spectrum.

Rounding to nearest leaves an error uniform in ±ulp/2 in every entry, of variance ulp²/12. The
errors of a trained matrix are independent enough for random matrix theory: the spectral norm of
the error matrix E stays below max over rows of √(row sum of variances) plus the same over
columns, up to a margin. A. Bandeira and R. van Handel, "Sharp nonasymptotic bounds on the norm of
random matrices with independent entries", Ann. Probab. 44 (2016), 2479.

The plain (√m + √n)·(mean deviation) is not used: it falls short up to fivefold where rows differ
in scale.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankscope.spectra.formats import FORMATS, Format

MARGIN = 1.5  # ‖E‖₂ was 0.42 to 0.96 of the edge for Gaussian to heavy-tailed matrices


BLOCK = 2**16  # entries at a time, so that they stay in the processor's cache
EXPONENT_BITS = {
    "float64": (np.uint64, 0x7FF0_0000_0000_0000),
    "float32": (np.uint32, 0x7F80_0000),
}


@dataclass(frozen=True)
class Rounding:
    """Rounding errors of a matrix that are independent of each other.

    Attributes
    ----------
    rows, columns
        Sums of the variances of the errors of its entries by row and by column, in units squared.
    unit
        A power of two; squares of very small entries would not be in range. 0 where no entry is
        rounded by itself.
    significant_bits
        Of the coarsest format that rounded it.
    beside
        What came otherwise than entry by entry, as from the factors of a product: the largest
        singular value that it may bring, in the units of the matrix.
    """

    rows: NDArray[np.float64]  # (m,)
    columns: NDArray[np.float64]  # (n,)
    unit: float = 1.0
    significant_bits: int = FORMATS["float64"].significant_bits
    beside: float = 0.0

    @classmethod
    def by_norm(cls, floor: float, significant_bits: int) -> Rounding:
        """Rounding of which only the largest singular value that it may bring is known."""
        return cls(np.zeros(1), np.zeros(1), 0.0, significant_bits, floor)

    def __add__(self, other: Rounding) -> Rounding:
        unit = max(self.unit, other.unit) or 1.0
        mine, theirs = (self.unit / unit) ** 2, (other.unit / unit) ** 2
        return Rounding(
            self.rows * mine + other.rows * theirs,
            self.columns * mine + other.columns * theirs,
            unit,
            min(self.significant_bits, other.significant_bits),
            math.hypot(self.beside, other.beside),
        )

    def __mul__(self, times: float) -> Rounding:
        beside = self.beside * math.sqrt(times)
        return replace(self, rows=self.rows * times, columns=self.columns * times, beside=beside)

    @property
    def floor(self) -> float:
        """Largest singular value that this rounding may bring, in the units of the matrix."""
        if not self.rows.size or not self.columns.size:
            return 0.0
        edge = float(np.sqrt(self.rows.max()) + np.sqrt(self.columns.max()))
        return math.hypot(MARGIN * self.unit * edge, self.beside)


def rounding_of(values: NDArray[Any], stored: str | Format) -> Rounding:
    """Rounding that storing ``values``, shape (m, n), in a format left.

    The format is one of `FORMATS` by its name, or what `format_of` found. Sums are taken in the
    type of the values: 1e-5 is far within the margin.
    """
    found = FORMATS[stored] if isinstance(stored, str) else stored
    mantissa, smallest = found
    held = np.ascontiguousarray(values, dtype=np.result_type(values, np.float32))
    if smallest < -100:
        rows, columns = _sums_of_squares(held)
        # Ordinary weights, of which no square left the range, and no subnormal one matters.
        if 2.0**-80 * values.shape[1] <= rows.max(initial=0) <= 2.0**80:
            return Rounding(rows / 12, columns / 12, 2.0**-mantissa, mantissa + 1)
    unit = _unit(held, smallest)
    rows, columns = _sums_of_squares(held, least=2.0**smallest, unit=unit)
    return Rounding(rows / 12, columns / 12, unit * 2.0**-mantissa, mantissa + 1)


def deviations(values: NDArray[Any], stored: Format, *, exponent: int = 0) -> NDArray[np.float64]:
    """Standard deviation of the rounding that storing left in each entry, over 2**exponent."""
    held = values.astype(np.float64)
    below = np.where(held == 0, stored.smallest_exponent, np.frexp(held)[1] - 1)
    ulps = np.maximum(below, stored.smallest_exponent) - stored.mantissa - exponent
    return np.asarray(np.ldexp(1 / math.sqrt(12), ulps))


def unit_exponent(values: NDArray[Any]) -> int:
    """Exponent of a power of two near the largest entry."""
    return math.frexp(float(np.abs(values).max(initial=0.0)))[1]


def rounding_of_merges(added: NDArray[Any], stored: Format, *, inner: int) -> Rounding:
    """Rounding of the products B·A that were formed in a format and make up ``added``.

    It comes on top of what storing each sum W + B·A leaves, which is `rounding_of` the weights.

    Parameters
    ----------
    added
        What all merges in between added, shape (m, n): the difference of two frozen weights.
    stored
        Format of the merged weights and factors.
    inner
        The rank r of each adapter.

    Notes
    -----
    An entry of D = B·A is a sum of r terms, rounded r times on its way. After l of them the partial
    sum is √(l/r) of the whole, for terms of random signs, and so its rounding has l/r of the
    variance v that storing the whole would leave: r/2·v for all l. The rounding of the terms
    themselves gives v together, and that of the scale v once more. So D errs by √(r/2 + 2) of its
    own storage rounding: the 0.7·√r that no measured product exceeds, since compilers add up in
    several short sums (0.53 to 0.58·√r). Formats narrower than float32 are added up in float32;
    only the product, and its scaled value, are rounded to them: 2v.

    Merges are known by their sum T = ΣD alone. Where their deltas are not alike, T² is ΣD² in the
    mean over rows and columns, and v goes with the square of an entry: then Σv(D) = v(T), whatever
    their number. Alike, they make T larger and the result too high; only deltas that cancel each
    other leave more rounding than is told here.
    """
    variances = inner / 2 + 2 if stored.mantissa >= FORMATS["float32"].mantissa else 2
    return rounding_of(added, stored) * variances


def _unit(values: NDArray[Any], smallest: int) -> float:
    """Power of two over which the squares of the entries do not leave the range."""
    largest = max(float(values.max(initial=0)), -float(values.min(initial=0)))
    if not 0 < largest < math.inf:
        return 1.0
    return math.ldexp(1.0, max(math.frexp(largest)[1] - 1, smallest))


def _sums_of_squares(
    values: NDArray[Any], *, least: float = 0.0, unit: float = 1.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums of 4ᵉ over rows and columns, 2ᵉ being the power of two below an entry, in units squared.

    An ulp is that of the smallest normal number, ``least``, from there down to zero.
    """
    m, n = values.shape
    rows, columns = np.empty(m), np.zeros(n)
    block = max(1, BLOCK // max(n, 1))
    by_row, by_column = np.ones(n, values.dtype), np.ones(block, values.dtype)
    for start in range(0, m, block):
        squares = _powers_of_two(values[start : start + block])
        if least:
            np.maximum(squares, least, out=squares)
            squares *= 1 / unit
        # Out of range only if the caller takes another unit then, or beside an infinity.
        with np.errstate(over="ignore", invalid="ignore"):
            squares *= squares
            rows[start : start + block] = squares @ by_row
            columns += by_column[: len(squares)] @ squares
    return rows, columns


def _powers_of_two(values: NDArray[Any]) -> NDArray[Any]:
    """2 to the exponent of each entry, which is the entry without its sign and mantissa bits."""
    bits, exponent = EXPONENT_BITS[values.dtype.name]
    return np.asarray((values.view(bits) & bits(exponent)).view(values.dtype))
