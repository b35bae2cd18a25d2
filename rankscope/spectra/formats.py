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
    held = held.astype(np.result_type(held, np.float32), copy=False)  # in the machine's byte order
    if held.dtype != np.float32:
        if _mantissas(held, np.uint64, 52, 29) & 0x1FFF_FFFF:
            return "float64"
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            narrow = held.astype(np.float32)
        if not np.array_equal(narrow, held):
            return "float64"
        held = narrow
    bits = _mantissas(held, np.uint32, 23, 13)
    if bits & 0x1FFF:
        return "float32"
    if not bits and not held.any():
        return "float64"
    return "bfloat16" if not bits & 0xFFFF else "float16" if _is_half(held) else "float32"


def _mantissas(values: NDArray[Any], bits: type[np.integer], width: int, last: int) -> int:
    """OR of the mantissas, ``width`` bits each, given up at the first of the ``last`` bits."""
    found, integers = 0, np.asarray(values.view(bits))
    for start in range(0, integers.size, BLOCK):
        found |= int(np.bitwise_or.reduce(integers[start : start + BLOCK]))
        if found & ((1 << last) - 1):
            break
    return found & ((1 << width) - 1)


def _is_half(values: NDArray[np.float32]) -> bool:
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return all(
            np.array_equal(block.astype(np.float16), block)
            for block in (values[i : i + BLOCK] for i in range(0, values.size, BLOCK))
        )
