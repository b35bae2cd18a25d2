"""What an adapter adds to a weight, and how that changed between two checkpoints."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from rankscope.checkpoints.contents import Adapter, Delta, KroneckerAdapter
from rankscope.checkpoints.tensors import Tensor
from rankscope.components.formed import Formed, multiplied_along, near_zero_floor, scaled_along
from rankscope.components.kronecker_deltas import (
    change_of_kronecker,
    factor_of,
    kronecker_formed,
    scale_of,
)
from rankscope.components.products import (
    IN_RANGE_OR_NOT,
    as_product,
    change_of_product,
    is_zero,
    multiplied,
    product_of,
)
from rankscope.components.tensor_errors import formed_of
from rankscope.spectra.bounds import UNIT_ROUNDOFF
from rankscope.spectra.formats import format_of
from rankscope.spectra.matrices import (
    Dense,
    Kronecker,
    LowRank,
    norm_of,
)


def delta(adapter: Delta) -> LowRank | Kronecker:
    """What an adapter adds to its weight, as factors in float64; unscaled if no scale is known.

    Rows that are cut out of a Kronecker product between its blocks are not such a product, and are
    multiplied out.
    """
    if isinstance(adapter, Adapter):
        return _product(adapter, *_factors(adapter))
    if adapter.rows is not None:
        return factored(adapter)
    first, second = factor_of(adapter.first, scale_of(adapter)), factor_of(adapter.second, 1.0)
    return Kronecker(first, second, adapter.tensors[0].dtype, adapter.scale is not None)


def _factors(adapter: Adapter) -> tuple[Formed, Formed]:
    return formed_of(adapter.lora_B), formed_of(adapter.lora_A)


def _product(adapter: Adapter, left: Formed, right: Formed) -> LowRank:
    return product_of(
        left,
        right,
        adapter.tensors[0].dtype,
        scale=scale_of(adapter),
        is_scaled=adapter.scale is not None,
    )


def factored(adapter: Delta) -> LowRank:
    """The delta as a product of two factors; a Kronecker product times the identity."""
    if isinstance(adapter, Adapter):
        product = delta(adapter)
        assert isinstance(product, LowRank)
        return product
    return as_product(kronecker_formed(adapter), is_scaled=adapter.scale is not None)


def adapted(weight: Formed, adapter: Delta | None) -> Formed:
    """The weight as the model uses it: W + delta, rescaled in DoRA."""
    if adapter is None:
        return weight
    if isinstance(adapter, KroneckerAdapter):
        return weight + kronecker_formed(adapter)
    factors = _factors(adapter)
    product = _product(adapter, *factors)
    if adapter.magnitude is not None:
        return _rescaled(weight, adapter, adapter.magnitude, factors)
    return weight if is_zero(product) else weight + multiplied(product)


@IN_RANGE_OR_NOT
def _rescaled(
    weight: Formed, adapter: Adapter, magnitude: Tensor, factors: tuple[Formed, Formed]
) -> Formed:
    """m·M/‖M‖ of M = W + delta, with a norm per row, (out, 1), or per column, (1, in).

    Normalising removes the effect of errors on the norm, so they grow by at most m/‖M‖ up to terms
    of second order; they are counted twice to cover those. The rounding of B and A grows row by
    row, or column by column: it is that of a product with B, or A, multiplied by these numbers.
    """
    product = _product(adapter, *factors)
    total = weight if is_zero(product) else weight + multiplied(product)
    gain, values = magnitude.read().astype(np.float64), total.values.astype(np.float64)
    by_row = gain.shape == (len(values), 1)
    norms = np.linalg.norm(values, axis=1 if by_row else 0, keepdims=True)
    numbers = gain / norms  # a row of zeros has no direction
    near_zero = near_zero_floor(total, gain, magnitude.dtype, lambda x: x / norms)
    rescaled = multiplied_along(total, numbers, format_of(gain, magnitude.dtype))
    terms = values.size / max(numbers.size, 1)  # of the sum in a norm
    more = (terms / 2 + 8) * UNIT_ROUNDOFF * norm_of(rescaled.values).value
    rescaled = replace(rescaled, error=2 * rescaled.error + more)
    if is_zero(product):
        return replace(rescaled, beside=math.hypot(rescaled.beside, near_zero))
    left, right = factors
    if by_row:
        left = scaled_along(left, numbers)
    else:
        right = scaled_along(right, numbers)
    beside = scaled_along(weight, numbers).exact().rounding().floor
    floor = float(_product(adapter, left, right).floor)
    return replace(rescaled, beside=math.hypot(beside, floor, near_zero))


def difference_of(later: Delta | None, earlier: Delta | None) -> LowRank | None:
    """The change of a delta, s₂B₂A₂ − s₁B₁A₁, of rank at most 2r; None if there is none at all."""
    if earlier is None:
        return None if later is None else factored(later)
    before = factored(earlier)
    if later is None:
        return replace(before, left=-before.left)
    return change_of_product(factored(later), before)


@dataclass(frozen=True)
class Rescaling:
    """The change that DoRA makes to a weight: m·(W + delta)/‖W + delta‖ − W."""

    tensor: Tensor
    adapter: Adapter

    @IN_RANGE_OR_NOT
    def read(self) -> Dense:
        """Subtract in float64; W is in both terms and counts as exact."""
        weight = formed_of(self.tensor)
        changed = adapted(weight.exact(), self.adapter)
        values = changed.values - weight.values.astype(np.float64)
        error = changed.error + weight.error + UNIT_ROUNDOFF * norm_of(values).value
        return Dense(values, self.adapter.lora_A.dtype, changed.rounding(), error)

    def tensors(self) -> tuple[Tensor, ...]:
        """W, and the parts of the adapter."""
        return (self.tensor, *self.adapter.tensors)

    @property
    def work(self) -> float:
        """Operations of a Gram matrix and its eigenvalues."""
        short = float(min(self.tensor.shape))
        return max(self.tensor.shape) * short**2 + 4 * short**3


@dataclass(frozen=True)
class DeltaChange:
    """The change of an adapter, which needs no base while the base stays the same."""

    later: Delta
    earlier: Delta

    def read(self) -> LowRank | Kronecker | Dense:
        """Subtract one from the other, in factors where they allow it."""
        if isinstance(self.later, KroneckerAdapter) and isinstance(self.earlier, KroneckerAdapter):
            change = change_of_kronecker(self.later, self.earlier)
            if change is not None:
                return change
        return change_of_product(factored(self.later), factored(self.earlier))

    def tensors(self) -> tuple[Tensor, ...]:
        """Parts of both adapters."""
        return (*self.later.tensors, *self.earlier.tensors)

    @property
    def work(self) -> float:
        """Operations of two QR decompositions and an SVD of the core."""
        inner = self.later.rank + self.earlier.rank
        return 4.0 * sum(self.later.shape) * inner**2 + 8.0 * inner**3
