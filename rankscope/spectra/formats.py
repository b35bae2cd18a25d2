"""The format that a matrix was rounded to, read from its values: the file's format may be finer.

A model that was trained in bfloat16 and saved as float32 holds 8 significant bits per number. The
OR of all mantissas shows this: the probability that the last 16 of 24 bits of every entry of a
trained matrix are zero by chance is 2^(−16mn). Entries that take few values (a mask, a ternary
weight, powers of two) are exact, and the format found for them is too coarse: their noise floor is
then too high, by up to that of bfloat16, and rank may be missed; it is never too low.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Entries at a time. Most matrices use all their bits, which the first few entries show.
BLOCK, FIRST_BLOCK = 2**16, 2**10


class Format(NamedTuple):
    """A binary floating-point format: stored bits of its mantissa, smallest normal exponent."""

    mantissa: int
    smallest_exponent: int

    @property
    def significant_bits(self) -> int:
        """Bits of a number, including the leading one, which is not stored."""
        return self.mantissa + 1


FORMATS = {
    "float64": Format(52, -1022),
    "float32": Format(23, -126),
    "float16": Format(10, -14),
    "bfloat16": Format(7, -126),
}

LARGEST_HALF = 65504
# The integer type that a float is viewed as, and the bits of its mantissa.
MANTISSAS: dict[type[np.floating], tuple[type[np.unsignedinteger[Any]], int]] = {
    np.float64: (np.uint64, (1 << 52) - 1),
    np.float32: (np.uint32, (1 << 23) - 1),
}


def format_of(values: NDArray[Any], dtype: str) -> Format:
    """The format that values stored as ``dtype`` are rounded to.

    Parameters
    ----------
    values
        An array of any shape, as it is in memory: bfloat16 as float32.
    dtype
        A key of `FORMATS`.

    Returns
    -------
    The coarser of the file's format and the `narrowest` that holds the values. Its spacing near
    zero is not finer than the file's either: float16 has subnormal numbers below 6e-5.
    """
    return coarser(dtype, dtype if dtype == "bfloat16" else narrowest(values))


def coarser(dtype: str, found: str) -> Format:
    """The format of values stored as ``dtype`` whose narrowest is ``found``; see `format_of`."""
    stored, narrow = FORMATS[dtype], FORMATS[found]
    mantissa = min(stored.mantissa, narrow.mantissa)
    smallest = stored.smallest_exponent - stored.mantissa + mantissa
    return Format(mantissa, max(narrow.smallest_exponent, smallest))


def narrowest(values: NDArray[Any]) -> str:
    """Name of the narrowest of bfloat16, float16, float32 and float64 that holds every value.

    The mantissas show float16's 11 bits, but not its range, which is checked separately. Values
    that are all zero show nothing; they get the widest format.
    """
    held = np.ravel(values, order="K")
    if held.dtype.itemsize > 4:
        if _mantissas(held, np.float64) & 0x1FFF_FFFF:
            return "float64"
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            narrow = held.astype(np.float32)
        if not np.array_equal(narrow, held):
            return "float64"
        held = narrow
    bits = _mantissas(held, np.float32, enough=0xFFFF if held.dtype == np.float16 else 0x1FFF)
    if bits & 0x1FFF:
        return "float32"
    if not bits and not held.any():
        return "float64"
    return "bfloat16" if not bits & 0xFFFF else "float16" if _is_half(held) else "float32"


def _mantissas(values: NDArray[Any], kind: type[np.floating], *, enough: int = 0x1FFF_FFFF) -> int:
    """OR of the mantissas of the values as ``kind``; stops early at a bit of ``enough``."""
    integer, mantissa = MANTISSAS[kind]
    bits, starts = 0, (0, *range(FIRST_BLOCK, values.size, BLOCK), values.size)
    for start, stop in pairwise(starts):
        block = values[start:stop].astype(kind, copy=False)  # in this byte order
        bits |= int(np.bitwise_or.reduce(block.view(integer)))
        if bits & enough:
            break
    return bits & mantissa


def _is_half(values: NDArray[np.floating]) -> bool:
    """Whether float16 holds values of at most eleven bits: their range, and their last places."""
    if values.dtype == np.float16:
        return True
    sizes = np.abs(values)
    if sizes.max() > LARGEST_HALF:
        return False
    places = sizes[sizes < 2.0 ** FORMATS["float16"].smallest_exponent] * np.float32(2.0**24)
    return bool((places == np.rint(places)).all())
