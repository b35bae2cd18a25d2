"""Adapters that are Kronecker products (LoKr): their factors, themselves, and their changes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from rankscope.checkpoints.contents import Delta, KroneckerAdapter
from rankscope.checkpoints.limits import check_memory
from rankscope.checkpoints.tensors import Tensor
from rankscope.components.formed import Formed
from rankscope.components.products import IN_RANGE_OR_NOT, SCALING, product_floor
from rankscope.components.tensor_errors import formed_of, product_in
from rankscope.spectra.bounds import UNIT_ROUNDOFF, Values
from rankscope.spectra.matrices import (
    Dense,
    Kronecker,
    LowRank,
    frobenius_norms,
    norm_of,
    spectral_norms,
)
from rankscope.spectra.rounding import Rounding


def scale_of(adapter: Delta) -> float:
    """The scale of an adapter; 1 where none is known."""
    return 1.0 if adapter.scale is None else adapter.scale


def factor_of(tensor: Tensor, scale: float) -> Dense | LowRank:
    """A factor of a Kronecker product, times a scale."""
    product = product_in(tensor)
    if product is not None:
        size = float(frobenius_norms(product.left) * frobenius_norms(product.right))
        return replace(
            product,
            left=scale * product.left,
            floor=abs(scale) * product.floor,
            error=abs(scale) * (product.error + SCALING * size),
        )
    return _times(formed_of(tensor), scale)


@IN_RANGE_OR_NOT
def kronecker_formed(adapter: KroneckerAdapter) -> Formed:
    """A Kronecker product, or rows of one, multiplied out."""
    first, second = formed_of(adapter.first), formed_of(adapter.second)
    scale = scale_of(adapter)
    values, error = _kronecker(first, second, scale)
    whole = Formed(
        values,
        adapter.tensors[0].dtype,
        beside=abs(scale) * _floor(first, second),
        error=error,
        bits=min(one.rounding().significant_bits for one in (first, second)),
    )
    if adapter.rows is None:
        return whole
    start, axes = adapter.rows
    rows = np.array([start])
    for size, stride in axes:
        rows = (rows[:, None] + stride * np.arange(size)).reshape(-1)
    return whole.part(lambda matrix: matrix[rows])


@IN_RANGE_OR_NOT
def change_of_kronecker(
    later: KroneckerAdapter, earlier: KroneckerAdapter
) -> Kronecker | Dense | None:
    """The change of a Kronecker product: A′⊗B′ − A⊗B = (A′ − A)⊗B′ + A⊗(B′ − B).

    Returns
    -------
    A Kronecker product if one factor stayed the same; otherwise a matrix, since the singular values
    of the sum do not follow from those of its terms. None if scales or shapes differ, if rows were
    cut out, or if both factors changed and the scale is unknown.
    """
    if later.scale != earlier.scale or later.rows is not None or earlier.rows is not None:
        return None
    pairs = [(later.first, earlier.first), (later.second, earlier.second)]
    if any(now.shape != was.shape for now, was in pairs):
        return None
    (first, first_was), (second, second_was) = (
        (formed_of(now), formed_of(was)) for now, was in pairs
    )
    scale, dtype, is_scaled = scale_of(later), later.tensors[0].dtype, later.scale is not None
    moved = _difference(first, first_was), _difference(second, second_was)
    if not moved[0].values.any():
        return Kronecker(_times(first, scale), moved[1].dense(), dtype, is_scaled)
    if not moved[1].values.any():
        return Kronecker(_times(moved[0], scale), second.dense(), dtype, is_scaled)
    if not is_scaled:
        return None
    one, its_error = _kronecker(moved[0], second, scale)
    other, error = _kronecker(first_was, moved[1], scale)
    values = one + other
    floor = abs(scale) * math.hypot(_floor(first, second), _floor(first_was, second_was))
    return Dense(
        values,
        dtype,
        Rounding.by_norm(
            floor,
            min(
                part.rounding().significant_bits for part in (first, first_was, second, second_was)
            ),
        ),
        its_error + error + UNIT_ROUNDOFF * norm_of(values).value,
    )


def _difference(later: Formed, earlier: Formed) -> Formed:
    """The change of a factor: exactly zero, without error, if it stayed the same."""
    if np.array_equal(later.values, earlier.values):
        return replace(later, values=np.zeros(later.values.shape), error=0.0)
    return later + replace(earlier, values=-earlier.values)


def _times(factor: Formed, scale: float) -> Dense:
    values = scale * factor.values.astype(np.float64)
    error = abs(scale) * factor.error + (0.0 if scale == 1 else SCALING * norm_of(values).value)
    return Dense(values, factor.dtype, factor.rounding() * scale**2, error)


def _kronecker(first: Formed, second: Formed, scale: float) -> tuple[Values, float]:
    """A Kronecker product, and a bound on the Frobenius norm of its error."""
    rows, columns = (a * b for a, b in zip(first.values.shape, second.values.shape, strict=True))
    what = f"a Kronecker product of {rows} × {columns}, multiplied out,"
    check_memory(8 * rows * columns, what)
    sizes = frobenius_norms(first.values), frobenius_norms(second.values)
    values = np.kron(scale * first.values.astype(np.float64), second.values.astype(np.float64))
    error = product_floor(sizes, (first.error, second.error)) + SCALING * sizes[0] * sizes[1]
    return np.asarray(values, np.float64), abs(scale) * float(error)


def _floor(first: Formed, second: Formed) -> float:
    """Noise floor of a Kronecker product, whose norm is the product of its factors' norms."""
    norms = spectral_norms(first.values[None])[0], spectral_norms(second.values[None])[0]
    return float(product_floor(norms, (first.rounding().floor, second.rounding().floor)))
