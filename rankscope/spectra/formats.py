"""Which format a matrix was rounded to: read from its values, since a file's format need not be it.

A model that was trained in bfloat16 and saved as float32 holds 8 significant bits a number. The
OR of all mantissas shows it: that the last 16 of 24 bits are zero in every entry of a trained
matrix by chance has the probability 2^(−16mn). Where entries take few values (a mask, a ternary
weight, powers of two) they are exact, and the format that is found here is too coarse: the noise
floor is then too high, by up to that of bfloat16, and rank may be missed; it is never too low.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

BLOCK = 2**16  # entries at a time: most matrices need all their bits, which the first ones show


class Format(NamedTuple):
    """A binary floating-point format: stored bits of its mantissa, smallest normal exponent."""

    mantissa: int
    smallest_exponent: int

    @property
    def significant_bits(self) -> int:
        """Bits of a number, the leading one included."""
        return self.mantissa + 1


FORMATS = {
    "float64": Format(52, -1022),
    "float32": Format(23, -126),
    "float16": Format(10, -14),
    "bfloat16": Format(7, -126),
}


LARGEST_HALF = 65504
# The integer as which to look at a float, and its mantissa.
MANTISSAS = {"float64": (np.uint64, (1 << 52) - 1), "float32": (np.uint32, (1 << 23) - 1)}


def format_of(values: NDArray[Any], dtype: str) -> Format:
    """What values that were stored in the format named ``dtype`` are rounded to.

    Parameters
    ----------
    values
        An array of any shape, as it is held: bfloat16 as float32.
    dtype
        A key of `FORMATS`.

    Returns
    -------
    The coarser of the format of the file and of `narrowest` of the values. Its spacing near zero is
    not below that of the file either, which float16 reaches soon.
    """
    stored = FORMATS[dtype]
    found = FORMATS[dtype if dtype == "bfloat16" else narrowest(values)]
    mantissa = min(stored.mantissa, found.mantissa)
    smallest = stored.smallest_exponent - stored.mantissa + mantissa
    return Format(mantissa, max(found.smallest_exponent, smallest))


def narrowest(values: NDArray[Any]) -> str:
    """Name of the narrowest of bfloat16, float16, float32 and float64 that holds every value.

    float16 has 11 bits, which the mantissas show, and a range of its own, which they do not. Of
    values that are all zero it is the widest: they show nothing.
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
    """OR of the mantissas of the values as ``kind``, given up at a bit that is ``enough``."""
    integer, mantissa = MANTISSAS[np.dtype(kind).name]
    found = 0
    for start in range(0, values.size, BLOCK):
        block = values[start : start + BLOCK].astype(kind, copy=False)  # in this byte order
        found |= int(np.bitwise_or.reduce(block.view(integer)))
        if found & enough:
            break
    return found & mantissa


def _is_half(values: NDArray[np.floating]) -> bool:
    """Whether float16 holds values of at most eleven bits: by its range, and its last place."""
    if values.dtype == np.float16:
        return True
    sizes = np.abs(values)
    if sizes.max() > LARGEST_HALF:
        return False
    places = sizes[sizes < 2.0 ** FORMATS["float16"].smallest_exponent] * np.float32(2.0**24)
    return bool((places == np.rint(places)).all())
