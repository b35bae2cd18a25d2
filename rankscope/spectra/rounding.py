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

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

MARGIN = 1.5  # ‖E‖₂ was 0.42 to 0.96 of the edge for Gaussian to heavy-tailed matrices


class Format(NamedTuple):
    """A binary floating-point format: stored bits of its mantissa, smallest normal exponent."""

    mantissa: int
    smallest_exponent: int


FORMATS = {
    "float64": Format(52, -1022),
    "float32": Format(23, -126),
    "float16": Format(10, -14),
    "bfloat16": Format(7, -126),
}


@dataclass(frozen=True)
class Rounding:
    """Sums of the variances of the rounding errors by row and by column, in units squared."""

    rows: NDArray[np.float64]  # (m,)
    columns: NDArray[np.float64]  # (n,)
    unit: float = 1.0  # a power of two; squares of very small entries would not be in range

    def __add__(self, other: Rounding) -> Rounding:
        unit = max(self.unit, other.unit)
        mine, theirs = (self.unit / unit) ** 2, (other.unit / unit) ** 2
        return Rounding(
            self.rows * mine + other.rows * theirs,
            self.columns * mine + other.columns * theirs,
            unit,
        )

    def __mul__(self, times: float) -> Rounding:
        return Rounding(self.rows * times, self.columns * times, self.unit)

    @property
    def floor(self) -> float:
        """Largest singular value that this rounding may bring, in the units of the matrix."""
        if not self.rows.size or not self.columns.size:
            return 0.0
        return MARGIN * self.unit * float(np.sqrt(self.rows.max()) + np.sqrt(self.columns.max()))


def rounding_of(values: NDArray[Any], dtype: str) -> Rounding:
    """Rounding that storing ``values``, shape (m, n), in the format named ``dtype`` left."""
    mantissa, smallest = FORMATS[dtype]
    power = np.maximum(_power_of_two(values), 2.0**smallest).astype(np.float64, copy=False)
    largest = float(power.max(initial=2.0**smallest))
    # Squares of float64 may leave its range; infinity stays, to be met as a nonfinite matrix.
    scale = largest if values.dtype == np.float64 and np.isfinite(largest) else 1.0
    variances = np.square(power if scale == 1.0 else power / scale) / 12
    return Rounding(variances.sum(axis=1), variances.sum(axis=0), scale * 2.0**-mantissa)


def _power_of_two(values: NDArray[Any]) -> NDArray[Any]:
    """2 to the exponent of each entry: the entry with its sign and mantissa bits cleared."""
    if values.dtype == np.float64:
        return (values.view(np.uint64) & np.uint64(0x7FF0_0000_0000_0000)).view(np.float64)
    exact = np.ascontiguousarray(values, dtype=np.float32)
    return (exact.view(np.uint32) & np.uint32(0x7F80_0000)).view(np.float32)
