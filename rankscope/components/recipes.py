"""Recipes for matrices: which stored tensors they are formed from, and how.

A recipe holds names and numbers but no data, so it is cheap to plan with and to send to a worker,
which calls `read` to get the matrix.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy as np

from rankscope.checkpoints.contents import Delta, is_rescaled
from rankscope.checkpoints.tensors import StoredTensor, Tensor
from rankscope.components.deltas import adapted, delta, difference_of, factored
from rankscope.components.formed import Formed
from rankscope.components.products import change_of_product, is_zero, multiplied, sum_of_products
from rankscope.components.tensor_errors import formed_of, product_in
from rankscope.errors import RankscopeError
from rankscope.spectra.bounds import UNIT_ROUNDOFF
from rankscope.spectra.formats import FORMATS, format_of
from rankscope.spectra.matrices import Decomposable, Dense, Kronecker, LowRank, norm_of
from rankscope.spectra.rounding import Rounding, rounding_of_merges

SAMPLE = 2**16
# Reasons that are in a file, and stay until it is another file.
OF_CONTENT = ("damaged", "cut-short", "quantised")


class Recipe(Protocol):
    """A matrix, or a stack of low-rank products, that can be read from disk."""

    def read(self) -> Decomposable:
        """Read the tensors and form the matrix.

        Raises
        ------
        RankscopeError
            If a tensor cannot be read, or the tensors do not fit together.
        """

    def tensors(self) -> tuple[Tensor, ...]:
        """The tensors that are read from disk."""

    @property
    def work(self) -> float:
        """Approximate number of floating-point operations that its spectrum takes."""


@lru_cache(maxsize=4096)
def dense_work(shape: tuple[int, ...]) -> float:
    """Operations of a Gram matrix and its eigenvalues."""
    short = float(min(shape))
    return max(shape) * short**2 + 4 * short**3


class Weight(NamedTuple):
    """A weight matrix as the model uses it: W, changed by its adapter if there is one.

    Attributes
    ----------
    origin
        W before the first merge on record, whose rounding has been in W ever since.
    """

    tensor: Tensor
    adapter: Delta | None = None
    origin: Tensor | None = None

    def read(self) -> Dense | LowRank:
        """Read W, factored if it is a product; with an adapter, add its delta in float64."""
        product = None if self.adapter is not None else product_in(self.tensor)
        return self.formed().dense() if product is None else product

    def formed(self) -> Formed:
        """Read W and its adapter, with the errors of both."""
        weight = formed_of(self.tensor)
        if self.origin is not None and self.origin.shape == weight.values.shape and weight.stored:
            mantissa = weight.stored[0][1].mantissa
            # Usually it needs as many bits, and its first elements show that.
            sample = self.origin.elements(0, min(weight.values.size, SAMPLE))
            if format_of(sample, self.origin.dtype).mantissa < mantissa:
                before = self.origin.read()
                coarser = format_of(before, self.origin.dtype)
                if coarser.mantissa < mantissa:
                    weight = replace(weight, stored=(*weight.stored, (before, coarser)))
        return adapted(weight, self.adapter)

    @property
    def states(self) -> tuple[StoredTensor, ...]:
        """W alone, if that is a matrix in a file, in row-major order; else nothing."""
        tensor = self.tensor
        is_plain = self.adapter is None and self.origin is None and len(tensor.shape) == 2
        is_stored = isinstance(tensor, StoredTensor) and tensor.strides is None
        return (tensor,) if is_plain and is_stored else ()  # type: ignore[return-value]

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
    """The change of a weight between two checkpoints.

    Attributes
    ----------
    merges
        How many times in between an adapter was merged into the weight in float64, as this
        package's trainer does and records; the sum is rounded each time.
    restarts
        How many other merges were counted. They form the product in the format of the weight, which
        rounds more (`rounding_of_merges`). A frozen weight that changed without a recorded merge
        had at least one.
    """

    later: Weight
    earlier: Weight
    merges: int = 0
    restarts: int = 0

    def read(self) -> Dense | LowRank:
        """Subtract in float64, or subtract only the factors if everything else is the same.

        Frozen weights and adapters are subtracted separately, so that the error is relative to the
        change: what is equal on both sides adds none.
        """
        if (self.later.adapter, self.earlier.adapter) == (None, None):
            products = product_in(self.later.tensor), product_in(self.earlier.tensor)
            if products[0] is not None and products[1] is not None:
                change = change_of_product(products[0], products[1])
                return replace(change, before=products[1].norms())
        return self.between(formed_of(self.later.tensor), formed_of(self.earlier.tensor))

    def between(self, later: Formed, earlier: Formed) -> Dense | LowRank:
        """The change, given both weights without their adapters as they were read."""
        change = self.bare(later, earlier)
        before = adapted(earlier.exact(), self.earlier.adapter)
        size = norm_of(before.values, before.error)
        if isinstance(change, LowRank):
            return replace(change, before=(size,))
        rounding = change.rounding
        if not self._is_rescaled or not np.array_equal(later.values, earlier.values):
            rounding = self._rounding(later, earlier) + rounding
        return replace(change, rounding=rounding, before=size)

    def bare(self, later: Formed, earlier: Formed) -> Dense | LowRank:
        """The change without the rounding of the weights, and without the size of what changed."""
        if self._is_rescaled:
            return self._of_rescaled(later, earlier)
        moved = difference_of(self.later.adapter, self.earlier.adapter)
        error = later.error + earlier.error
        if moved is not None and np.array_equal(later.values, earlier.values):
            return replace(moved, error=moved.error + error)
        with np.errstate(over="ignore", invalid="ignore"):
            values = later.values.astype(np.float64) - earlier.values
        total = Formed(values, self.dtype, error=error + UNIT_ROUNDOFF * norm_of(values).value)
        if moved is not None and not is_zero(moved):
            total += multiplied(moved)
        return total.dense()

    def _of_rescaled(self, later: Formed, earlier: Formed) -> Dense:
        """The change of a weight under DoRA; a base that is equal on both sides counts as exact."""
        now = adapted(later.exact(), self.later.adapter)
        was = adapted(earlier.exact(), self.earlier.adapter)
        with np.errstate(over="ignore", invalid="ignore"):
            values = now.values.astype(np.float64) - was.values
        error = now.error + was.error + UNIT_ROUNDOFF * norm_of(values).value
        return Dense(values, self.dtype, now.rounding() + was.rounding(), error)

    @property
    def states(self) -> tuple[StoredTensor, ...]:
        """Both weights, if the change is nothing but their difference; else nothing."""
        both = self.later.states + self.earlier.states
        is_plain = len(both) == 2 and not (self.merges or self.restarts)
        return both if is_plain and both[0].shape == both[1].shape else ()

    @property
    def _is_rescaled(self) -> bool:
        return is_rescaled(self.later.adapter) or is_rescaled(self.earlier.adapter)

    @property
    def dtype(self) -> str:
        """Storage format; of both weights where these differ."""
        dtypes = self.later.tensor.dtype, self.earlier.tensor.dtype
        return dtypes[0] if dtypes[0] == dtypes[1] else "-".join(dtypes)

    def _rounding(self, later: Formed, earlier: Formed) -> Rounding:
        """Rounding of both stored weights, of each merge, and of the merged products."""
        now = later.stored[0][1] if later.stored else FORMATS[later.dtype]
        if self.merges and earlier.stored and earlier.stored[0][1].mantissa < now.mantissa:
            # The merge added to the earlier weight: its rounding is in both, and cancels.
            exact = FORMATS[earlier.dtype]
            earlier = replace(earlier, stored=((earlier.values, exact), *earlier.stored[1:]))
        rounding = later.rounding() * max(self.merges + self.restarts, 1) + earlier.rounding()
        adapters = [w.adapter for w in (self.later, self.earlier) if w.adapter is not None]
        was_frozen = len(adapters) == 2 and not self.merges
        if not adapters or not (self.restarts or was_frozen):
            return rounding
        added = later.values.astype(np.float64) - earlier.values
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
    """The sum of adapters' deltas, from their joined factors: one adapter, or all merges so far."""

    adapters: tuple[Delta, ...]

    def read(self) -> LowRank | Kronecker:
        """[s₁B₁ … sₖBₖ] and [A₁; …; Aₖ], whose product is the sum; a single delta as it is."""
        return delta(self.adapters[0]) if len(self.adapters) == 1 else self.factored()

    def factored(self) -> LowRank:
        """The sum as a product of two factors, whatever the deltas are."""
        return sum_of_products([factored(adapter) for adapter in self.adapters])

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
    """A matrix that should be there but cannot be formed; reading it raises the reason."""

    shape: tuple[int, ...]
    dtype: str
    path: str
    name: str
    reason: str
    message: str

    def read(self) -> Dense | LowRank:
        """Raise the reason why there is no matrix."""
        raise RankscopeError(self.message, path=self.path, tensor=self.name, reason=self.reason)

    def tensors(self) -> tuple[Tensor, ...]:
        """No tensors."""
        return ()

    @property
    def work(self) -> float:
        """No operations."""
        return 0.0


def factors_of(adapter: Delta | None) -> tuple[Tensor, ...]:
    """The tensors of an adapter; none without one."""
    return () if adapter is None else adapter.tensors
