"""Values kept in fewer bits than the format of their file."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from rankscope.checkpoints.tensors import Tensor
from rankscope.diagnostics.evidence import Evidence, grouped
from rankscope.diagnostics.finding import Finding, Kind, Number, Unchecked
from rankscope.diagnostics.restarts import iter_restarts
from rankscope.spectra.formats import FORMATS, format_of

FEWEST_VALUES = 32  # different ones among a thousand entries: fewer are a mask or a ternary weight

FEWER = Kind(
    "fewer-bits",
    "note",
    "The weights were rounded to a shorter format before they were saved. Noise floors take this "
    "into account; small updates may be lost.",
    "Nothing, if they were trained in that format. Otherwise save the float32 weights that the "
    "optimizer keeps.",
)
MERGED_SHORT = Kind(
    "merged-in-fewer-bits",
    "warning",
    "The frozen weights are kept in a shorter format than that of their file, and merges are "
    "rounded to it: each adds full-rank noise and loses whatever is below half a unit.",
    "Keep the frozen weights in float32 while merging into them.",
)


def check_bits(evidence: Evidence) -> Iterator[Finding | Unchecked]:
    """Compare the bits that weights use with the format that they are stored in."""
    merged = {
        later.name
        for restart in iter_restarts(evidence)
        for _, later in restart.pairs
        if any(later.module in adapters for adapters in restart.merged)
    }
    found: dict[str, list[int]] = {}
    bits: dict[str, tuple[int, str]] = {}
    for moment in evidence.moments:
        for name, parameter in moment.contents.parameters.items():
            if parameter.tensor is not None:
                held = _bits(evidence, parameter.tensor, moment.step)
                if held is not None:
                    found.setdefault(name, []).append(moment.step)
                    bits[name] = held, parameter.tensor.dtype
    for steps, names in grouped(found):
        for kind, some in (
            (MERGED_SHORT, tuple(name for name in names if name in merged)),
            (FEWER, tuple(name for name in names if name not in merged)),
        ):
            if some:
                held, dtype = bits[some[0]]
                text = (
                    f"{len(some)} matrices are stored as {dtype}, with "
                    f"{FORMATS[dtype].significant_bits} significant bits, and use {held}"
                )
                numbers: dict[str, Number] = {
                    "matrices": len(some),
                    "significant_bits": held,
                    "dtype": dtype,
                }
                yield kind.at(evidence.place.of(steps, some), text, numbers)


def _bits(evidence: Evidence, tensor: Tensor, step: int) -> int | None:
    """Significant bits of a tensor if they are fewer than its format has, else None.

    Where few different values occur, as in ternary weights or a constant, their bits show nothing.
    """
    sample = evidence.sampled(tensor, step)
    if np.unique(np.abs(sample[:1024])).size < FEWEST_VALUES:
        return None
    held = format_of(sample, tensor.dtype).significant_bits
    if held >= FORMATS[tensor.dtype].significant_bits:
        return None
    whole = evidence.read(tensor.read, tensor, step)
    held = format_of(whole, tensor.dtype).significant_bits if whole.size else held
    return held if held < FORMATS[tensor.dtype].significant_bits else None
