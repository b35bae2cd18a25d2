"""Recipes for matrices: which stored tensors, put together how.

A source holds names and numbers, no data: it is cheap to plan with and to send to a worker, which
calls `read` for the matrix itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rankscope.checkpoints.contents import Adapter
from rankscope.checkpoints.tensors import Tensor
from rankscope.components.formed import Formed, added, formed
from rankscope.components.products import (
    change_of_product,
    is_zero,
    stored_product,
    sum_of_products,
)
from rankscope.errors import RankscopeError
from rankscope.spectra.bounds import UNIT_ROUNDOFF
from rankscope.spectra.formats import FORMATS, format_of
from rankscope.spectra.matrices import Dense, LowRank, norm_of
from rankscope.spectra.rounding import Rounding, rounding_of, rounding_of_merges

SAMPLE = 2**16


class Source(Protocol):
    """A matrix, or a stack of low-rank products, that can be read from disk."""

    def read(self) -> Dense | LowRank:
        """Read the tensors and put the matrix together.

        Raises
        ------
        RankscopeError
            If a tensor cannot be read, or the tensors do not fit together.
        """

    def tensors(self) -> tuple[Tensor, ...]:
        """What is read from disk."""

    @property
    def work(self) -> float:
        """About how many floating-point operations its spectrum takes."""


def dense_work(shape: tuple[int, ...]) -> float:
    """Operations of a Gram matrix and its eigenvalues."""
    short = float(min(shape))
    return max(shape) * short**2 + 4 * short**3


@dataclass(frozen=True)
class Weight:
    """A weight matrix as the model uses it: W, or W + scale·B·A.

    Attributes
    ----------
    origin
        W before the first merge on record: what that was rounded to is in it ever since.
    """

    tensor: Tensor
    adapter: Adapter | None = None
    origin: Tensor | None = None

    def read(self) -> Dense:
        """Read W; with an adapter, add its delta in float64."""
        return self.formed().dense()

    def formed(self) -> Formed:
        """Read W and its adapter, with the errors that both bring."""
        values = self.tensor.read()
        stored = [(values, format_of(values, self.tensor.dtype))]
        if self.origin is not None and self.origin.shape == values.shape:
            # Mostly it needs as many bits, which its first elements show.
            sample = self.origin.elements(0, min(values.size, SAMPLE))
            if format_of(sample, self.origin.dtype).mantissa < stored[0][1].mantissa:
                before = self.origin.read()
                found = format_of(before, self.origin.dtype)
                if found.mantissa < stored[0][1].mantissa:
                    stored.append((before, found))
        product = None if self.adapter is None else delta(self.adapter)
        return formed(self.tensor.dtype, tuple(stored), product)

    def tensors(self) -> tuple[Tensor, ...]:
        """W, the factors of the adapter, and W before the merges."""
        origin = () if self.origin is None else (self.origin,)
        return (self.tensor, *factors_of(self.adapter), *origin)

    @property
    def work(self) -> float:
        """Operations of a dense spectrum."""
        return dense_work(self.tensor.shape)


@dataclass(frozen=True)
class Difference:
    """What a weight changed by between two checkpoints.

    Attributes
    ----------
    merges
        How many times in between an adapter was merged into the weight in float64, as this
        package's trainer does and records: each time the sum is rounded.
    restarts
        How many other merges were counted. They form the product in the format of the weight, which
        rounds more (`rounding_of_merges`). A frozen weight that changed without any merge on record
        had at least one.
    """

    later: Weight
    earlier: Weight
    merges: int = 0
    restarts: int = 0

    def read(self) -> Dense | LowRank:
        """Subtract in float64; by the adapters alone where the frozen weights are the same.

        The frozen weights from each other and the adapters from each other, so that the error is
        relative to the change: what is equal on both sides adds none.
        """
        later, earlier = self.later.tensor.read(), self.earlier.tensor.read()
        products = [
            None if w.adapter is None else delta(w.adapter) for w in (self.later, self.earlier)
        ]
        change = _change_of_deltas(*products)
        start = formed(self.earlier.tensor.dtype, ((earlier, FORMATS["float64"]),), products[1])
        before = norm_of(start.values, start.error)
        if change is not None and np.array_equal(later, earlier):
            return replace(change, before=(before,))
        with np.errstate(over="ignore", invalid="ignore"):
            values = later.astype(np.float64) - earlier
        error, rounding = UNIT_ROUNDOFF * norm_of(values).value, self._rounding(later, earlier)
        if change is not None and not is_zero(change):
            values, forming = added(values, change)
            error += forming
            rounding += Rounding.by_norm(float(change.floor), rounding.significant_bits)
        dtypes = self.later.tensor.dtype, self.earlier.tensor.dtype
        dtype = dtypes[0] if dtypes[0] == dtypes[1] else "-".join(dtypes)
        return Dense(values, dtype, rounding, error, before)

    def _rounding(self, later: NDArray[np.floating], earlier: NDArray[np.floating]) -> Rounding:
        """Rounding of both stored weights, of each merge, and of the products that were merged."""
        now = format_of(later, self.later.tensor.dtype)
        was = format_of(earlier, self.earlier.tensor.dtype)
        if self.merges and was.mantissa < now.mantissa:
            # The merge added to the weight as it was: its rounding is in both, and cancels.
            was = FORMATS[self.earlier.tensor.dtype]
        rounding = rounding_of(later, now) * max(self.merges + self.restarts, 1)
        rounding += rounding_of(earlier, was)
        adapters = [w.adapter for w in (self.later, self.earlier) if w.adapter is not None]
        was_frozen = len(adapters) == 2 and not self.merges
        if not adapters or not (self.restarts or was_frozen):
            return rounding
        added = later.astype(np.float64) - earlier
        return rounding + rounding_of_merges(added, now, inner=adapters[0].rank)

    def tensors(self) -> tuple[Tensor, ...]:
        """Tensors of both weights."""
        return self.later.tensors() + self.earlier.tensors()

    @property
    def work(self) -> float:
        """Operations of a dense spectrum, which often needs the slower route."""
        return 2 * dense_work(self.later.tensor.shape)


@dataclass(frozen=True)
class Products:
    """A sum of adapters' deltas, from their stacked factors: one adapter, or all merges so far."""

    adapters: tuple[Adapter, ...]

    def read(self) -> LowRank:
        """[s₁B₁ … sₖBₖ] and [A₁; …; Aₖ], whose product is the sum."""
        return sum_of_products([delta(adapter) for adapter in self.adapters])

    def tensors(self) -> tuple[Tensor, ...]:
        """Factors of every adapter."""
        return tuple(tensor for adapter in self.adapters for tensor in factors_of(adapter))

    @property
    def work(self) -> float:
        """Operations of two QR decompositions and an SVD of the core."""
        inner = sum(adapter.rank for adapter in self.adapters)
        return 4.0 * sum(self.adapters[0].shape) * inner**2 + 8.0 * inner**3


@dataclass(frozen=True)
class Misfit:
    """A matrix that should be there and cannot be made; reading it says why."""

    shape: tuple[int, ...]
    dtype: str
    path: str
    name: str
    reason: str
    message: str

    def read(self) -> Dense | LowRank:
        """Say why there is no matrix."""
        raise RankscopeError(self.message, path=self.path, tensor=self.name, reason=self.reason)

    def tensors(self) -> tuple[Tensor, ...]:
        """Nothing."""
        return ()

    @property
    def work(self) -> float:
        """None."""
        return 0.0


def factors_of(adapter: Adapter | None) -> tuple[Tensor, ...]:
    """The two stored factors of an adapter, if there is one."""
    return () if adapter is None else (adapter.lora_A, adapter.lora_B)


def delta(adapter: Adapter) -> LowRank:
    """What an adapter adds to its weight, scale·B·A, as factors in float64."""
    return stored_product(
        adapter.lora_B.read(),
        adapter.lora_A.read(),
        (adapter.lora_B.dtype, adapter.lora_A.dtype),
        scale=1.0 if adapter.scale is None else adapter.scale,
    )


def _change_of_deltas(later: LowRank | None, earlier: LowRank | None) -> LowRank | None:
    if earlier is None:
        return later
    if later is None:
        return replace(earlier, left=-earlier.left)
    return change_of_product(later, earlier)
