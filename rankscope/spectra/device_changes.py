"""Changes of stored matrices on a device of torch; elsewhere `rankscope.components` forms them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from rankscope.spectra.backends import scaling_exponent
from rankscope.spectra.bounds import UNIT_ROUNDOFF, frobenius_bound
from rankscope.spectra.cosines import are_sizes, known_cosine, product_sum_bound
from rankscope.spectra.device_matrices import BITS, format_of, held, rounding_of, sparsity
from rankscope.spectra.formats import Format
from rankscope.spectra.matrices import Dense, Matrix
from rankscope.spectra.shared_rounding import RANGE, of_classes
from rankscope.spectra.spectrum import Cosine, Norm


class State(NamedTuple):
    """A stored matrix in float32 or float64, and the format that it is rounded to."""

    values: Tensor
    kind: Format

    @classmethod
    def stored(cls, values: Tensor, dtype: str) -> State:
        """A matrix in the format of its file, whose name is ``dtype``."""
        wide = held(values)
        return cls(wide, format_of(wide, dtype))


def change_of(states: Sequence[State], dtype: str) -> Dense:
    """The last state minus the one before it, with their rounding.

    Parameters
    ----------
    states
        Of one matrix, last first: two, or three for the cosine with the change before.
    dtype
        Name of the storage format of both.

    Returns
    -------
    A matrix whose ``values`` are a tensor, for `TorchBackend`.
    """
    later, earlier, *first = states
    values = later.values.to(torch.float64) - earlier.values
    size = norm_of(values)
    error = UNIT_ROUNDOFF * size.value
    return Dense(
        cast("Matrix", values),
        dtype,
        rounding_of(*later) + rounding_of(*earlier),
        error,
        before=norm_of(earlier.values),
        cosine=_cosine(values, later, earlier, first[0]) if first else None,
        entries=sparsity(values, error),
    )


def norm_of(values: Tensor, error: float = 0.0) -> Norm:
    """As `rankscope.spectra.matrices.norm_of`."""
    wide = torch.where(torch.isfinite(values), values, 0).to(torch.float64)
    largest = float(wide.abs().amax()) if wide.numel() else 0.0
    if not largest:
        return Norm(largest, error)
    unit = 2.0 ** scaling_exponent(largest)
    norm = unit * float((wide * (1 / unit)).square_().sum()) ** 0.5
    return Norm(norm, error + frobenius_bound(norm, values.numel()))


def _cosine(values: Tensor, later: State, shared: State, first: State) -> Cosine | None:
    """Cosine of the change with the one from ``first`` to ``shared``."""
    before = shared.values.to(torch.float64) - first.values
    if not (bool(torch.isfinite(values).all()) and bool(torch.isfinite(before).all())):
        return None
    norms = []
    for change in (values, before):
        size = norm_of(change)
        norms.append(Norm(size.value, size.error + UNIT_ROUNDOFF * size.value))
    if not are_sizes(norms):
        return None
    product = float(((values / norms[0].value) * (before / norms[1].value)).sum())
    bound = product_sum_bound(values.numel())
    return known_cosine(product, bound, norms, _shared(later, shared, first))


def _shared(later: State, shared: State, first: State) -> float | None:
    """What the rounding of the shared state adds to the inner product; None if not known."""
    if not bool(shared.values.any()):
        return 0.0
    present = [one.kind.mantissa for one in (later, shared, first) if bool(one.values.any())]
    if shared.kind.mantissa < max(present):
        return None
    return shared_rounding(first.values, shared.values, later.values, shared.kind)


def shared_rounding(before: Tensor, shared: Tensor, after: Tensor, stored: Format) -> float:
    """As `rankscope.spectra.shared_rounding.shared_rounding`, without factors.

    Squares are sorted by spacing and added in that order: adding them to one sum for each spacing
    at once would give other last bits in every call.
    """
    places, order = (spacings(shared, stored) + RANGE).reshape(-1).sort(stable=True)
    found, counts = torch.unique_consecutive(places, return_counts=True)
    ends = counts.cumsum(0).tolist()
    count, squares = np.zeros(2 * RANGE), np.zeros((2, 2 * RANGE))
    count[found.cpu().numpy()] = counts.cpu().numpy()
    for sums, other in zip(squares, (before, after), strict=True):
        # Of float32 the processor takes the difference in float32 too.
        change = (shared - other).to(torch.float64).square_().reshape(-1)[order]
        parts = [change[a:b].sum() for a, b in zip([0, *ends], ends, strict=False)]
        sums[found.cpu().numpy()] = torch.stack(parts).cpu().numpy()
    return of_classes(count, count, squares)


def spacings(values: Tensor, stored: Format) -> Tensor:
    """As `rankscope.spectra.rounding.spacings`."""
    integer, mask, _ = BITS[values.dtype]
    places = (mask & -mask).bit_length() - 1
    exponents = ((values.view(integer) & mask) >> places).to(torch.int32) - (mask >> places + 1)
    return exponents.clamp_(min=stored.smallest_exponent) - stored.mantissa
