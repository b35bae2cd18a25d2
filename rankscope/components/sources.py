"""Recipes for matrices: which stored tensors, put together how.

A source holds names and numbers, no data: it is cheap to plan with and to send to a worker, which
calls `read` for the matrix itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rankscope.checkpoints.contents import Delta, is_rescaled
from rankscope.checkpoints.tensors import Tensor
from rankscope.components.deltas import (
    computed,
    delta,
    difference_of,
    effective,
    factored,
    negative,
    product_in,
    stacked,
)
from rankscope.errors import RankscopeError
from rankscope.spectra.matrices import Decomposable, Dense, Kronecker, LowRank
from rankscope.spectra.rounding import Rounding, rounding_of, rounding_of_merges

Values = NDArray[np.float64]


class Source(Protocol):
    """A matrix, or a stack of low-rank products, that can be read from disk."""

    def read(self) -> Decomposable:
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
    """A weight matrix as the model uses it: W, or what an adapter makes of it."""

    tensor: Tensor
    adapter: Delta | None = None

    def read(self) -> Dense | LowRank:
        """Read W, factored if it is a product; with an adapter, add its delta in float64."""
        product = None if self.adapter is not None else product_in(self.tensor)
        if product is not None:
            return product
        values = self.tensor.read()
        if self.adapter is None:
            return Dense.stored(values, self.tensor.dtype)
        return Dense(self.added(values), self.tensor.dtype, rounding_of(values, self.tensor.dtype))

    def added(self, values: NDArray[np.floating]) -> Values:
        """``values`` in float64, with the adapter's delta."""
        return effective(values, self.adapter)

    def tensors(self) -> tuple[Tensor, ...]:
        """W, and the factors of the adapter."""
        return (self.tensor, *factors_of(self.adapter))

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
        """Subtract in float64; by the factors alone where all else is the same."""
        pair = self.later.adapter, self.earlier.adapter
        adapted = any(adapter is not None for adapter in pair)
        products = [product_in(weight.tensor) for weight in (self.later, self.earlier)]
        if not adapted and products[0] is not None and products[1] is not None:
            return stacked([products[0], negative(products[1])])
        later, earlier = self.later.tensor.read(), self.earlier.tensor.read()
        if adapted and np.array_equal(later, earlier):
            if not any(map(is_rescaled, pair)):
                return difference_of(*pair)
            both = self.later.added(later), self.earlier.added(earlier)
            return Dense(both[0] - both[1], self.later.tensor.dtype, computed(*both))
        dtypes = self.later.tensor.dtype, self.earlier.tensor.dtype
        return Dense(
            self.later.added(later) - self.earlier.added(earlier),
            dtypes[0] if dtypes[0] == dtypes[1] else "-".join(dtypes),
            self._rounding(later, earlier),
        )

    def _rounding(self, later: NDArray[np.floating], earlier: NDArray[np.floating]) -> Rounding:
        """Rounding of both stored weights, of each merge, and of the products that were merged."""
        dtype = self.later.tensor.dtype
        rounding = rounding_of(later, dtype) * max(self.merges + self.restarts, 1)
        rounding += rounding_of(earlier, self.earlier.tensor.dtype)
        adapters = [w.adapter for w in (self.later, self.earlier) if w.adapter is not None]
        was_frozen = len(adapters) == 2 and not self.merges
        if not adapters or not (self.restarts or was_frozen):
            return rounding
        added = later.astype(np.float64) - earlier
        return rounding + rounding_of_merges(added, dtype, inner=adapters[0].rank)

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

    adapters: tuple[Delta, ...]

    def read(self) -> LowRank | Kronecker:
        """[s₁B₁ … sₖBₖ] and [A₁; …; Aₖ], whose product is the sum; of one, the delta itself."""
        deltas = [delta(adapter) for adapter in self.adapters]
        return deltas[0] if len(deltas) == 1 else stacked([factored(one) for one in deltas])

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


def factors_of(adapter: Delta | None) -> tuple[Tensor, ...]:
    """What an adapter is read from, if there is one."""
    return () if adapter is None else adapter.tensors
