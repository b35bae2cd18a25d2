"""What an adapter does to a weight, and what changed between two states of one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rankscope.checkpoints.adapters.derived_tensors import Product
from rankscope.checkpoints.contents import Adapter, Delta, KroneckerAdapter
from rankscope.checkpoints.tensors import Tensor
from rankscope.spectra.matrices import Dense, Kronecker, LowRank
from rankscope.spectra.rounding import Rounding, rounding_of

Values = NDArray[np.float64]


def delta(adapter: Delta) -> LowRank | Kronecker:
    """What an adapter adds to its weight, as factors in float64; over its scale if none is known.

    Factors are taken as exact. Rows of a Kronecker product that are cut between its blocks are not
    one, and come multiplied out.
    """
    scale = 1.0 if adapter.scale is None else adapter.scale
    is_scaled, dtype = adapter.scale is not None, adapter.tensors[0].dtype
    if isinstance(adapter, Adapter):
        left = scale * adapter.lora_B.read().astype(np.float64)
        return LowRank(left, adapter.lora_A.read().astype(np.float64), dtype, is_scaled)
    first, second = _exact(adapter.first, scale), _exact(adapter.second, 1.0)
    whole = Kronecker(first, second, dtype, is_scaled)
    return whole if adapter.rows is None else _rows(whole, adapter)


def effective(values: NDArray[np.floating], adapter: Delta | None) -> Values:
    """The weight as the model uses it, in float64: W + delta, or what DoRA makes of that."""
    weight = values.astype(np.float64)
    if adapter is None:
        return weight
    weight += delta(adapter).multiplied()
    if not isinstance(adapter, Adapter) or adapter.magnitude is None:
        return weight
    magnitude = adapter.magnitude.read().astype(np.float64)  # (out, 1), or (1, in)
    by_row = magnitude.shape[1] == 1
    with np.errstate(invalid="ignore", divide="ignore"):  # a row of zeros has no direction
        norms = np.linalg.norm(weight, axis=1 if by_row else 0, keepdims=True)
        return np.asarray(magnitude * (weight / norms))


def stacked(terms: list[LowRank]) -> LowRank:
    """Sum of products as one product; terms that are zero add no inner dimension."""
    present = [term for term in terms if term.left.any() and term.right.any()] or terms[:1]
    return LowRank(
        np.hstack([term.left for term in present]),
        np.vstack([term.right for term in present]),
        terms[0].dtype,
        all(term.is_scaled for term in terms),
    )


def difference_of(later: Delta | None, earlier: Delta | None) -> LowRank:
    """What a delta changed by: s₂B₂A₂ − s₁B₁A₁, of rank 2r at most."""
    terms = [] if later is None else [factored(delta(later))]
    if earlier is not None:
        terms.append(negative(factored(delta(earlier))))
    return stacked(terms)


def factored(matrix: LowRank | Kronecker) -> LowRank:
    """A product of two factors; a Kronecker product is one with the identity."""
    if isinstance(matrix, LowRank):
        return matrix
    return LowRank(matrix.multiplied(), np.eye(matrix.shape[1]), matrix.dtype, matrix.is_scaled)


def negative(product: LowRank) -> LowRank:
    """The product times −1."""
    return replace(product, left=-product.left)


def product_in(tensor: Tensor) -> LowRank | None:
    """A weight that is a product by construction, in its factors; None of any other."""
    return LowRank(*tensor.factors(), tensor.dtype) if isinstance(tensor, Product) else None


@dataclass(frozen=True)
class Rescaling:
    """The change that DoRA makes to a weight: m·(W + delta)/‖W + delta‖ − W."""

    tensor: Tensor
    adapter: Adapter

    def read(self) -> Dense:
        """Subtract in float64, whose rounding of both terms is all that is not exact."""
        values = self.tensor.read().astype(np.float64)
        changed = effective(values, self.adapter)
        return Dense(changed - values, self.adapter.lora_A.dtype, computed(changed, values))

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
    """What an adapter changed by, which needs no base as long as it is the same."""

    later: Delta
    earlier: Delta

    def read(self) -> LowRank:
        """Stack the factors of both."""
        return difference_of(self.later, self.earlier)

    def tensors(self) -> tuple[Tensor, ...]:
        """Parts of both adapters."""
        return (*self.later.tensors, *self.earlier.tensors)

    @property
    def work(self) -> float:
        """Operations of two QR decompositions and an SVD of the core."""
        inner = self.later.rank + self.earlier.rank
        return 4.0 * sum(self.later.shape) * inner**2 + 8.0 * inner**3


def computed(*terms: Values) -> Rounding:
    """Rounding of float64 arithmetic on terms of a sum."""
    first, *others = (rounding_of(term, "float64") for term in terms)
    for other in others:
        first += other
    return first


def _exact(tensor: Tensor, scale: float) -> Dense | LowRank:
    """A factor of a Kronecker product, without rounding of its own."""
    product = product_in(tensor)
    if product is not None:
        return replace(product, left=scale * product.left)
    values = scale * tensor.read().astype(np.float64)
    m, n = values.shape
    return Dense(values, tensor.dtype, Rounding(np.zeros(m), np.zeros(n)))


def _rows(whole: Kronecker, adapter: KroneckerAdapter) -> LowRank:
    """Rows of a Kronecker product, which are none themselves."""
    if adapter.rows is None:
        return factored(whole)
    start, axes = adapter.rows
    places = np.array([start])
    for size, stride in axes:
        places = (places[:, None] + stride * np.arange(size)).reshape(-1)
    values = whole.multiplied()[places]
    return LowRank(values, np.eye(values.shape[1]), whole.dtype, whole.is_scaled)
