"""Stored matrices on a device of torch: the rounding of their entries, and how sparse they are.

The same numbers as on the processor, found from the bytes as the file holds them, so that a matrix
of bfloat16 takes a quarter of the transfer that float64 would. Powers of two are added in float64
here and in float32 there, which moves a noise floor by 1e-6 of itself at most.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from rankscope.spectra.counted_entries import Sums
from rankscope.spectra.entries import from_sums
from rankscope.spectra.formats import FORMATS, LARGEST_HALF, Format, coarser
from rankscope.spectra.matrices import Dense, Matrix
from rankscope.spectra.rounding import Rounding, unit_of
from rankscope.spectra.spectrum import Sparsity

TYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
# The integer type that a float is viewed as, the bits of its exponent, and those of its mantissa.
BITS = {
    torch.float64: (torch.int64, 0x7FF0_0000_0000_0000, (1 << 52) - 1),
    torch.float32: (torch.int32, 0x7F80_0000, (1 << 23) - 1),
}
BLOCK = 2**24  # entries at a time, so that float64 copies take 128 MB


def stored(values: Tensor, dtype: str) -> Dense:
    """A matrix on a device as `Dense`, with its rounding and its sparsity.

    Parameters
    ----------
    values
        Shape ``(m, n)``, in the format of the file.
    dtype
        Name of that format, a key of `TYPES`.

    Returns
    -------
    A matrix whose ``values`` are the tensor, for `TorchBackend`.
    """
    wide = held(values)
    rounding = rounding_of(wide, format_of(wide, dtype))
    return Dense(cast("Matrix", values), dtype, rounding, entries=sparsity(wide))


def held(values: Tensor) -> Tensor:
    """A matrix in the format of its file, in float32 or float64, which hold it exactly."""
    return values if values.dtype == torch.float64 else values.to(torch.float32)


def format_of(values: Tensor, dtype: str) -> Format:
    """As `rankscope.spectra.formats.format_of`, of a matrix in float32 or float64."""
    return coarser(dtype, dtype if dtype == "bfloat16" else narrowest(values))


def narrowest(values: Tensor) -> str:
    """As `rankscope.spectra.formats.narrowest`, of a matrix in float32 or float64."""
    if values.dtype == torch.float64:
        narrow = values.to(torch.float32)
        if not torch.equal(narrow.to(torch.float64), values):
            return "float64"
        values = narrow
    integers = values.view(torch.int32)
    if _any(integers, 0x1FFF):
        return "float32"
    if not _any(integers, 0x7F_FFFF) and not bool(values.any()):
        return "float64"
    return (
        "bfloat16" if not _any(integers, 0xFFFF) else "float16" if _is_half(values) else "float32"
    )


def rounding_of(values: Tensor, kind: Format) -> Rounding:
    """As `rankscope.spectra.rounding.rounding_of`, of a matrix in float32 or float64."""
    m, n = values.shape
    smallest, mantissa = kind.smallest_exponent, kind.mantissa
    unit = unit_of(float(values.abs().amax()) if values.numel() else 0.0, smallest)
    integer, exponent, _ = BITS[values.dtype]
    rows, columns = (torch.zeros(k, dtype=torch.float64, device=values.device) for k in (m, n))
    step = max(1, BLOCK // max(n, 1))
    for start in range(0, m, step):
        block = values[start : start + step]
        powers = (block.view(integer) & exponent).view(values.dtype).to(torch.float64)
        squares = powers.clamp_(min=2.0**smallest).mul_(1 / unit).square_()
        rows[start : start + step] = squares.sum(dim=1)
        columns += squares.sum(dim=0)
    # Not divided on the device, which multiplies by 1/12 and so rounds twice.
    variances = rows.cpu().numpy() / 12, columns.cpu().numpy() / 12
    return Rounding(*variances, unit * 2.0**-mantissa, mantissa + 1)


def sparsity(values: Tensor, error: float = 0.0) -> Sparsity | None:
    """As `rankscope.spectra.entries.sparsity`."""
    n = values.numel()
    ordered = values.abs().reshape(-1).sort().values
    largest = float(ordered[-1]) if n else 0.0  # NaN is sorted to the end
    if not 0 < largest < math.inf:
        return None
    sums = torch.zeros(3, dtype=torch.float64, device=values.device)
    for start in range(0, n, BLOCK):
        x = ordered[start : start + BLOCK].to(torch.float64) / largest
        places = torch.arange(len(x), dtype=torch.float64, device=x.device) * 2 + (
            2 * start + 1 - n
        )
        sums += torch.stack([x.sum(), x @ x, places @ x])
    total, squares, weighted = sums.tolist()
    return from_sums(n, Sums(largest, total, squares, weighted), error)


def _any(integers: Tensor, bits: int) -> bool:
    """Whether any element has one of these bits; the first ones nearly always show it."""
    first = integers.reshape(-1)[: 2**16]
    return bool((first & bits).any()) or bool((integers & bits).any())


def _is_half(values: Tensor) -> bool:
    """Whether float16 holds values of at most eleven bits: their range, and their last places."""
    sizes = values.abs()
    if float(sizes.amax()) > LARGEST_HALF:
        return False
    small = sizes < 2.0 ** FORMATS["float16"].smallest_exponent
    places = torch.where(small, sizes, 0) * 2.0**24
    return bool((places == places.round()).all())
