"""Adapters that are not a product of two stored factors: LoHa, LoKr and VeRA."""

from __future__ import annotations

import math
from collections.abc import Mapping

from rankscope.checkpoints.adapters.composed_tensors import KhatriRao, Product, ScaledRows
from rankscope.checkpoints.adapters.scaling import Form, Scales
from rankscope.checkpoints.contents import Adapter, Delta, KroneckerAdapter
from rankscope.checkpoints.regions import Part, Region
from rankscope.checkpoints.tensors import FLOATS, Tensor
from rankscope.errors import RankscopeError

HADAMARD = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
TUCKER = ("hada_t1", "hada_t2", "lokr_t1", "lokr_t2", "lora_mid")
VERA = ("vera_lambda_b", "vera_lambda_d")


def special_delta(
    module: str, found: Mapping[str, Tensor], scales: Scales, *, alpha: float | None
) -> Delta | None:
    """Delta of a module from tensors by the ends of their names; None if it is of another kind.

    Parameters
    ----------
    alpha
        The rank times the scale, as a tensor of LyCORIS beside them states it.

    Raises
    ------
    RankscopeError
        If they are of such a kind but do not fit, or the form of the kind is not read.
    """
    tucker = next((end for end in TUCKER if end in found), None)
    if tucker is not None:
        raise _fault(f"has a Tucker core ({tucker}); such a delta is not read", found)
    if all(end in found for end in HADAMARD):
        return _hadamard(module, found, scales, alpha)
    if "lokr_w1" in found or "lokr_w1_a" in found:
        return _kronecker(module, found, scales, alpha)
    return None


def shared_delta(found: Mapping[str, Tensor], down: Tensor, up: Tensor) -> Adapter:
    """Delta of VeRA: diag(b)·up[:out]·diag(d)·down, with the columns of the widest module.

    Raises
    ------
    RankscopeError
        If the parts do not fit each other.
    """
    b, d = (found[end] for end in VERA)
    rows, rank = math.prod(b.shape), math.prod(d.shape)
    if len(down.shape) != 2 or len(up.shape) != 2 or rows > up.shape[0]:
        raise _fault("does not fit the projections that all modules share", found)
    if rank > min(down.shape[0], up.shape[1]) or 0 in (rows, rank):
        raise _fault("does not fit the projections that all modules share", found)
    width = up.shape[1]
    left = Part(up, Region(0, ((rows, width),), (rank, 1)))
    right = Part(down, Region(0, ((rank, down.shape[1]),), (down.shape[1], 1)))
    return Adapter(ScaledRows(right, d), ScaledRows(left, b), 1.0)


def with_columns(adapter: Adapter, count: int) -> Adapter:
    """The delta of VeRA for a module with ``count`` inputs: the first columns of ``down``."""
    scaled = adapter.lora_A
    if not isinstance(scaled, ScaledRows) or not isinstance(scaled.matrix, Part):
        return adapter
    rows, width = scaled.matrix.shape
    cut = Part(scaled.matrix.whole, Region(0, ((rows, width),), (count, 1)))
    return Adapter(ScaledRows(cut, scaled.numbers), adapter.lora_B, adapter.scale)


def _hadamard(
    module: str, found: Mapping[str, Tensor], scales: Scales, alpha: float | None
) -> Adapter:
    """(w1_a·w1_b) ∘ (w2_a·w2_b), which is again a product of two factors."""
    w1_a, w1_b, w2_a, w2_b = (_plain(found, end) for end in HADAMARD)
    pairs = (w1_a, w1_b), (w2_a, w2_b)
    if any(left.shape[1] != right.shape[0] for left, right in pairs):
        raise _fault("its factors do not fit each other", found)
    if (w1_a.shape[0], w1_b.shape[1]) != (w2_a.shape[0], w2_b.shape[1]):
        raise _fault("its two products differ in shape", found)
    scale = _scale(module, scales, alpha, rank=w1_a.shape[1], form="hadamard")
    return Adapter(KhatriRao(w1_b, w2_b, by_rows=True), KhatriRao(w1_a, w2_a), scale)


def _kronecker(
    module: str, found: Mapping[str, Tensor], scales: Scales, alpha: float | None
) -> KroneckerAdapter:
    """w1 ⊗ w2; each of them may be a product of two factors."""
    first, second = (_whole(found, f"lokr_w{i}") for i in (1, 2))
    inner = [part.inner for part in (first, second) if isinstance(part, Product)]
    if not inner and alpha is not None:  # LyCORIS uses the scale 1 if nothing has a rank
        return KroneckerAdapter(first, second, 1.0)
    scale = _scale(module, scales, alpha, rank=inner[0] if inner else 1, form="kronecker")
    return KroneckerAdapter(first, second, scale)


def _whole(found: Mapping[str, Tensor], end: str) -> Tensor:
    if end in found:
        return _plain(found, end)
    if f"{end}_a" not in found or f"{end}_b" not in found:
        raise _fault(f"has no {end}, and not both {end}_a and {end}_b", found)
    left, right = _plain(found, f"{end}_a"), _plain(found, f"{end}_b")
    if left.shape[1] != right.shape[0]:
        raise _fault(f"its {end}_a and {end}_b do not fit each other", found)
    return Product(left, right)


def _scale(
    module: str, scales: Scales, alpha: float | None, *, rank: int, form: Form
) -> float | None:
    return scales.of(module, rank=rank, form=form) if alpha is None else alpha / rank


def _plain(found: Mapping[str, Tensor], end: str) -> Tensor:
    """A tensor as a matrix; a convolution has one row per output."""
    tensor = found[end]
    if 0 in tensor.shape:
        raise _fault(f"its {end} is empty", found)
    if len(tensor.shape) < 2 or tensor.dtype not in FLOATS:
        raise _fault(f"its {end} is {list(tensor.shape)} of {tensor.dtype}, not a factor", found)
    if len(tensor.shape) == 2:
        return tensor
    return Part(tensor, Region.of((tensor.shape[0], math.prod(tensor.shape[1:]))))


def _fault(message: str, found: Mapping[str, Tensor]) -> RankscopeError:
    tensor = next(iter(found.values()))
    return RankscopeError(message, path=tensor.paths[0], reason="adapter-unsupported")
