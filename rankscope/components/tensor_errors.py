"""Reading a tensor with its errors: its values, and the rounding of its stored parts.

A tensor that a file holds is exact except for what storing it rounded. One that is computed from
several carries the rounding of each of them, and that of computing it in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from rankscope.checkpoints.adapters.composed_tensors import (
    KhatriRao,
    PlusSparse,
    Product,
    ScaledRows,
)
from rankscope.checkpoints.derived import Masked, Normalised, SpectrallyNormalised
from rankscope.checkpoints.families.stacks import Layer
from rankscope.checkpoints.regions import Part
from rankscope.checkpoints.tensors import Tensor
from rankscope.components.formed import (
    Formed,
    multiplied_along,
    nearest_powers,
    scaled_entries,
    times_stored,
)
from rankscope.components.products import multiplied, product_of
from rankscope.spectra.bounds import UNIT_ROUNDOFF
from rankscope.spectra.formats import format_of
from rankscope.spectra.matrices import LowRank, Matrix, norm_of


def formed_of(tensor: Tensor) -> Formed:
    """Read a tensor, with the errors of everything that it is computed from."""
    if isinstance(tensor, (Part, Layer)) and _is_made(tensor.whole):
        return formed_of(tensor.whole).part(tensor.of)
    make = MADE.get(type(tensor))
    return Formed.read(tensor.read(), tensor.dtype) if make is None else make(tensor)


def product_in(tensor: Tensor) -> LowRank | None:
    """The factors of a weight that is a product by construction; None for any other."""
    if not isinstance(tensor, Product):
        return None
    factors = formed_of(tensor.left), formed_of(tensor.right)
    return product_of(*factors, tensor.dtype, scale=tensor.scale)


def _is_made(tensor: Tensor) -> bool:
    while isinstance(tensor, (Part, Layer)):
        tensor = tensor.whole
    return type(tensor) in MADE


def _product(tensor: Product) -> Formed:
    factors = formed_of(tensor.left), formed_of(tensor.right)
    return multiplied(product_of(*factors, tensor.dtype, scale=tensor.scale))


def _plus_sparse(tensor: PlusSparse) -> Formed:
    sparse = Formed.read(tensor.sparse(), tensor.values.dtype)
    return _product(tensor.product) + sparse


def _scaled_rows(tensor: ScaledRows) -> Formed:
    numbers = tensor.numbers.read().astype(np.float64).reshape(-1, 1)
    return times_stored(formed_of(tensor.matrix), numbers, tensor.numbers.dtype, lambda x: x)


def _khatri_rao(tensor: KhatriRao) -> Formed:
    """All products of two matrices' columns, or rows.

    The Gram matrix is that of one matrix times that of the other, entry by entry. Therefore the
    largest singular value is at most that of one times the longest row of the other (I. Schur), and
    the Frobenius norm likewise.
    """
    first, second = formed_of(tensor.first), formed_of(tensor.second)
    values = tensor.of(first.values, second.values)
    lengths = [
        norm_longest(part.values.T if tensor.by_rows else part.values) for part in (first, second)
    ]

    def error_of(errors: tuple[float, float]) -> float:
        return errors[0] * lengths[1] + lengths[0] * errors[1] + errors[0] * errors[1]

    rounding = first.rounding(), second.rounding()
    return Formed(
        values,
        tensor.dtype,
        beside=error_of((rounding[0].floor, rounding[1].floor)),
        error=error_of((first.error, second.error)) + UNIT_ROUNDOFF * norm_of(values).value,
        bits=min(one.significant_bits for one in rounding),
        made_of=(first, second),
    )


def norm_longest(values: Matrix) -> float:
    """Norm of the longest row."""
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(values.astype(np.float64), axis=1)
    return float(np.nan_to_num(lengths).max(initial=0.0))


def _masked(tensor: Masked) -> Formed:
    """A weight times a mask; one of zeros and ones changes no bit of what it keeps."""
    weight, mask = formed_of(tensor.stored), tensor.mask_values()
    if ((mask == 0) | (mask == 1)).all():
        return weight.part(lambda values: values * mask)
    found = format_of(np.asarray(mask, np.float64), tensor.mask.dtype)
    values = weight.values.astype(np.float64) * mask
    powers = nearest_powers(np.asarray(mask, np.float64))
    stored = tuple(scaled_entries(*entries, powers) for entries in weight.stored)
    error = weight.error * float(np.abs(mask).max()) + UNIT_ROUNDOFF * norm_of(values).value
    return Formed(values, weight.dtype, (*stored, (values, found)), error=error)


def _normalised(tensor: Normalised) -> Formed:
    """A direction times a gain over its norm; to first order, rounding adds nothing through it."""
    direction, gain = formed_of(tensor.stored), tensor.gain.read().astype(np.float64)
    values = direction.values.astype(np.float64)
    formed = times_stored(
        direction, gain, tensor.gain.dtype, lambda gain: tensor.numbers(values, gain)
    )
    terms = values.size / max(tensor.numbers(values, gain).size, 1)  # of the sum in a norm
    more = (terms / 2 + 8) * UNIT_ROUNDOFF * norm_of(formed.values).value
    return replace(formed, error=2 * formed.error + more)


def _spectrally_normalised(tensor: SpectrallyNormalised) -> Formed:
    """A weight over σ = uᵀ·W·v, which the rounding of u and v moves relative to itself."""
    weight = formed_of(tensor.stored)
    vectors = tensor.left.read(), tensor.right.read()
    u, v = (vector.astype(np.float64) for vector in vectors)
    matrix, sigma = tensor.estimated(weight.values.astype(np.float64), u, v)
    bits = [
        format_of(vector, part.dtype)
        for vector, part in zip(vectors, (tensor.left, tensor.right), strict=True)
    ]
    formed = multiplied_along(weight, np.asarray(1 / sigma), min(bits))
    sizes = [float(np.linalg.norm(x)) for x in (u, v, matrix @ v, u @ matrix)]
    moved = (
        2.0 ** -bits[0].significant_bits * sizes[0] * sizes[2]
        + 2.0 ** -bits[1].significant_bits * sizes[1] * sizes[3]
    )
    off = (sum(matrix.shape) + 4) * UNIT_ROUNDOFF * sizes[0] * sizes[1] * norm_of(matrix).value
    error = formed.error + off / abs(sigma) * norm_of(formed.values).value
    return replace(formed, relative=weight.relative + moved / abs(sigma), error=error)


MADE: Mapping[type, Callable[[Any], Formed]] = {
    Product: _product,
    PlusSparse: _plus_sparse,
    ScaledRows: _scaled_rows,
    KhatriRao: _khatri_rao,
    Masked: _masked,
    Normalised: _normalised,
    SpectrallyNormalised: _spectrally_normalised,
}
