"""What rounding to a storage format adds to a spectrum.

Rounding to nearest leaves an error uniform in ±ulp/2 in every entry, of variance ulp²/12. The
errors of a trained matrix are independent enough for random matrix theory: up to a margin, the
spectral norm of the error matrix E stays below the largest √(sum of variances in a row) plus the
largest in a column. A. Bandeira and R. van Handel, "Sharp nonasymptotic bounds on the norm of
random matrices with independent entries", Ann. Probab. 44 (2016), 2479.

The simpler (√m + √n)·(mean deviation) is not used: it is up to five times too small where rows
differ in scale.
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
EXPONENT_BITS: dict[type[np.generic], tuple[type[np.unsignedinteger[Any]], int]] = {
    np.float64: (np.uint64, 0x7FF0_0000_0000_0000),
    np.float32: (np.uint32, 0x7F80_0000),
}


@dataclass(frozen=True)
class Rounding:
    """Independent rounding errors of a matrix.

    Attributes
    ----------
    rows, columns
        Sums of the variances of the errors of its entries by row and by column, in units squared.
    unit
        A power of two, since squares of very small entries would leave the range. 0 if no entry is
        rounded on its own.
    significant_bits
        Those of the coarsest format that rounded it.
    beside
        Rounding that is not entry by entry, such as that of a product's factors: the largest
        singular value that it may produce, in the units of the matrix.
    """

    rows: NDArray[np.float64]  # (m,)
    columns: NDArray[np.float64]  # (n,)
    unit: float = 1.0
    significant_bits: int = FORMATS["float64"].significant_bits
    beside: float = 0.0

    @classmethod
    def by_norm(cls, floor: float, significant_bits: int) -> Rounding:
        """Rounding known only by the largest singular value that it may produce."""
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
        """Largest singular value that this rounding may produce, in the units of the matrix."""
        if not self.rows.size or not self.columns.size:
            return 0.0
        edge = float(np.sqrt(self.rows.max()) + np.sqrt(self.columns.max()))
        return math.hypot(MARGIN * self.unit * edge, self.beside)


def rounding_of(values: NDArray[Any], stored: str | Format) -> Rounding:
    """Rounding that remains in ``values``, shape (m, n), from storing them.

    The format is a name in `FORMATS`, or what `format_of` returns. Sums are taken in the type of
    the values: their error of 1e-5 is far within the margin.
    """
    mantissa, smallest = FORMATS[stored] if isinstance(stored, str) else stored
    held = np.ascontiguousarray(values, dtype=np.result_type(values, np.float32))
    if smallest < -100:
        rows, columns = _sums_of_squares(held)
        # Ordinary weights: no square left the range, and no subnormal entry matters.
        if 2.0**-80 * values.shape[1] <= rows.max(initial=0) <= 2.0**80:
            return Rounding(rows / 12, columns / 12, 2.0**-mantissa, mantissa + 1)
    unit = unit_of(_largest(held), smallest)
    rows, columns = _sums_of_squares(held, least=2.0**smallest, unit=unit)
    return Rounding(rows / 12, columns / 12, unit * 2.0**-mantissa, mantissa + 1)


def spacings(values: NDArray[Any], stored: Format) -> NDArray[np.int64]:
    """Exponent of the spacing of a format at each entry: 2 to that power."""
    held = np.ascontiguousarray(values, dtype=np.result_type(values, np.float32))
    bits, mask = EXPONENT_BITS[held.dtype.type]
    places = (mask & -mask).bit_length() - 1
    exponents = (held.view(bits) >> places & mask >> places).astype(np.int64)
    exponents -= mask >> places + 1  # the bias
    return np.maximum(exponents, stored.smallest_exponent) - stored.mantissa


def deviations(values: NDArray[Any], stored: Format, *, exponent: int = 0) -> NDArray[np.float64]:
    """Standard deviation of the rounding of each entry, in units of 2**exponent."""
    return np.asarray(np.ldexp(1 / math.sqrt(12), spacings(values, stored) - exponent))


def unit_exponent(values: NDArray[Any]) -> int:
    """Exponent of the power of two above the largest entry."""
    return math.frexp(float(np.abs(values).max(initial=0.0)))[1]


def rounding_of_merges(added: NDArray[Any], stored: Format, *, inner: int) -> Rounding:
    """Rounding of the products B·A that add up to ``added`` and were formed in a format.

    It adds to the rounding from storing each sum W + B·A, which is `rounding_of` the weights.

    Parameters
    ----------
    added
        The sum of all merges in between, shape (m, n): the difference of two frozen weights.
    stored
        Format of the merged weights and factors.
    inner
        The rank r of each adapter.

    Notes
    -----
    An entry of D = B·A is a sum of r terms that is rounded r times on the way. After l terms of
    random signs the partial sum is √(l/r) of the whole, and rounding it has l/r of the variance v
    of rounding the whole: r/2·v over all l. Rounding the terms themselves adds v, and the scale
    adds v. D thus errs by √(r/2 + 2) of its own storage rounding, about 0.7·√r. No measured product
    exceeds that: processors add in several short sums (0.53 to 0.58·√r). Formats narrower than
    float32 are summed in float32, and only the product and its scaled value are rounded to them:
    2v.

    Of the merges only the sum T = ΣD is known. If their deltas are not alike, T² is ΣD² on average
    over rows and columns; v grows with the square of an entry, so Σv(D) = v(T) however many there
    are. Deltas that are alike make T larger and the result too high. Only deltas that cancel each
    other leave more rounding than this.
    """
    variances = inner / 2 + 2 if stored.mantissa >= FORMATS["float32"].mantissa else 2
    return rounding_of(added, stored) * variances


def _largest(values: NDArray[Any]) -> float:
    return max(float(values.max(initial=0)), -float(values.min(initial=0)))


def unit_of(largest: float, smallest: int) -> float:
    """Power of two to divide entries up to ``largest`` by, so that their squares stay in range."""
    if not largest < math.inf:
        return 1.0
    return math.ldexp(1.0, max(math.frexp(largest)[1] - 1, smallest) if largest else smallest)


def _sums_of_squares(
    values: NDArray[Any], *, least: float = 0.0, unit: float = 1.0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums of 4ᵉ over rows and columns, in units squared; 2ᵉ is the power of two below an entry.

    From the smallest normal number, ``least``, down to zero the spacing of numbers is constant.
    """
    m, n = values.shape
    rows, columns = np.empty(m), np.zeros(n)
    block = max(1, BLOCK // max(n, 1))
    by_row, by_column = np.ones(n, values.dtype), np.ones(block, values.dtype)
    integer, exponent = EXPONENT_BITS[values.dtype.type]
    bits, exponent_bits = values.view(integer), integer(exponent)
    # If this overflows, an entry is infinite or the caller repeats it in another unit.
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, m, block):
            # 2ᵉ is the entry without its sign and mantissa bits.
            squares = (bits[start : start + block] & exponent_bits).view(values.dtype)
            if least:
                np.maximum(squares, least, out=squares)
                squares *= 1 / unit
            squares *= squares
            rows[start : start + block] = squares @ by_row
            columns += by_column[: len(squares)] @ squares
    return rows, columns
