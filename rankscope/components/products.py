"""Low-rank products of stored factors: the rounding in them, their sums and their changes.

A change of a product, L′R′ − LR, is written as (L′ − L)·R′ + L·(R′ − R): factors are compared
before they are multiplied, so that a product that did not change gives exact zeros, and the error
is relative to the change rather than to the product.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from rankscope.checkpoints.limits import check_memory
from rankscope.components.factor_noise import joint_floor
from rankscope.components.formed import Formed
from rankscope.spectra.bounds import UNIT_ROUNDOFF, Values, multiplying_bound
from rankscope.spectra.matrices import (
    LowRank,
    Matrix,
    finite_part,
    frobenius_norms,
    norm_of,
    spectral_norms,
)
from rankscope.spectra.rounding import Rounding

# A matrix with an entry that is not finite has no spectrum; its status says so later.
IN_RANGE_OR_NOT = np.errstate(over="ignore", invalid="ignore", divide="ignore")
SCALING = 3 * UNIT_ROUNDOFF  # a scale α/√r is rounded twice, its product with L once


@IN_RANGE_OR_NOT
def product_of(
    left: Formed, right: Formed, dtype: str, *, scale: float = 1.0, is_scaled: bool = True
) -> LowRank:
    """``scale · left @ right`` of two factors as they were read.

    If e is the largest singular value that the rounding of a factor may produce, that of the
    product is at most ‖L‖·e_R + e_L·‖R‖ + e_L·e_R. What forming the factors rounded enters
    likewise, in Frobenius norms. Factors with dependent errors have another floor: `joint_floor`.
    """
    pair = Factor.of(left), Factor.of(right)
    product = joined(*pair, dtype)
    joint = joint_floor(left, right)
    return replace(
        product,
        left=scale * left.values.astype(np.float64),
        right=right.values.astype(np.float64),
        floor=abs(scale) * (product.floor if joint is None else joint),
        error=abs(scale) * (product.error + (scale != 1) * SCALING * pair[0].size * pair[1].size),
        is_scaled=is_scaled,
    )


@dataclass(frozen=True)
class Factor:
    """A factor as it was read, and what the errors of its products follow from.

    Attributes
    ----------
    norm, size
        Spectral and Frobenius norm of its finite entries.
    """

    formed: Formed
    norm: float
    size: float
    rounding: Rounding

    @classmethod
    def of(cls, formed: Formed) -> Factor:
        """Measure a factor, once for all products that it is in."""
        finite = formed.part(finite_part)
        norm, size = spectral_norms(finite.values[None])[0], frobenius_norms(finite.values)
        return cls(formed, float(norm), float(size), finite.rounding())


@IN_RANGE_OR_NOT
def joined(left: Factor, right: Factor, dtype: str) -> LowRank:
    """``left @ right`` of two factors with independent rounding."""
    floors = left.rounding.floor, right.rounding.floor
    errors = left.formed.error, right.formed.error
    return LowRank(
        left.formed.values,
        right.formed.values,
        dtype,
        floor=float(product_floor((left.norm, right.norm), floors)),
        error=float(product_floor((left.size, right.size), errors)),
        significant_bits=min(left.rounding.significant_bits, right.rounding.significant_bits),
    )


def stacked(products: Sequence[LowRank]) -> LowRank:
    """Products of one shape, as a stack in float64."""
    return replace(
        products[0],
        left=np.stack([one.left for one in products], dtype=np.float64),
        right=np.stack([one.right for one in products], dtype=np.float64),
        floor=np.array([one.floor for one in products]),
        error=np.array([one.error for one in products]),
        significant_bits=min(one.significant_bits for one in products),
    )


@IN_RANGE_OR_NOT
def multiplied(product: LowRank) -> Formed:
    """The product multiplied out, which rounds by at most (r + 1)·u·‖L‖·‖R‖."""
    sizes = [norm_of(factor).value for factor in (product.left, product.right)]
    return Formed(
        product.multiplied(),
        product.dtype,
        beside=float(product.floor),
        error=float(product.error) + multiplying_bound(*sizes, inner=product.inner),
        bits=product.significant_bits,
    )


@IN_RANGE_OR_NOT
def as_product(matrix: Formed, *, is_scaled: bool = True) -> LowRank:
    """A matrix times the identity, to be added to products."""
    rounding, columns = matrix.rounding(), matrix.values.shape[1]
    check_memory(8 * columns**2, f"the identity of {columns} × {columns} beside a matrix")
    return LowRank(
        matrix.values.astype(np.float64),
        np.eye(columns),
        matrix.dtype,
        floor=rounding.floor,
        error=matrix.error,
        significant_bits=rounding.significant_bits,
        is_scaled=is_scaled,
    )


@IN_RANGE_OR_NOT
def product_floor(
    norms: tuple[float | Values, float | Values], errors: tuple[float | Values, float | Values]
) -> Values:
    """Error of a product from the errors of its factors: ‖L‖·e_R + e_L·‖R‖ + e_L·e_R."""
    return np.asarray(norms[0] * errors[1] + errors[0] * norms[1] + np.multiply(*errors))


@IN_RANGE_OR_NOT
def sum_of_products(terms: Sequence[LowRank]) -> LowRank:
    """Sum as one product [L₁ … Lₖ]·[R₁; …; Rₖ], without zero terms and pairs that cancel."""
    present = _without_opposites([term for term in terms if not is_zero(term)])
    if not present:
        first = terms[0]
        return replace(first, left=np.zeros_like(first.left), error=0.0)
    return LowRank(
        np.concatenate([term.left for term in present], axis=-1),
        np.concatenate([term.right for term in present], axis=-2),
        terms[0].dtype,
        floor=reduce(np.hypot, (term.floor for term in present)),
        error=sum((term.error for term in present), 0.0),
        significant_bits=min(term.significant_bits for term in present),
        is_scaled=all(term.is_scaled for term in terms),
    )


def is_zero(product: LowRank) -> bool:
    """Whether one factor holds zeros only, and both are finite."""
    factors = product.left, product.right
    return not all(x.any() for x in factors) and all(np.isfinite(x).all() for x in factors)


@IN_RANGE_OR_NOT
def change_of_product(later: LowRank, earlier: LowRank) -> LowRank:
    """The change of a product, as a product whose inner dimension is at most the sum of both.

    Both are products, or stacks of the same length. Where a product in the stack did not change,
    one factor of the result holds zeros only.
    """
    both = sum_of_products([later, replace(earlier, left=-earlier.left)])
    if later.left.shape != earlier.left.shape or later.right.shape != earlier.right.shape:
        return both
    moved, turned = later.left - earlier.left, later.right - earlier.right
    parts = [(moved, later.right), (earlier.left, turned)]
    sizes = [_bounds(left, right) for left, right in parts]
    floor, error = np.hypot(later.floor, earlier.floor), np.add(later.error, earlier.error)
    if not any(size.any() for size in sizes):
        return replace(later, left=moved, floor=floor, error=error)
    if sum(size.sum() for size in sizes) > _bounds(both.left, both.right).sum():
        changed = (moved != 0).any(axis=(-2, -1)) | (turned != 0).any(axis=(-2, -1))
        return replace(both, left=both.left * changed[..., None, None])
    used = [_balanced(*part) for part, size in zip(parts, sizes, strict=True) if size.any()]
    return LowRank(
        np.concatenate([left for left, _ in used], axis=-1),
        np.concatenate([right for _, right in used], axis=-2),
        later.dtype,
        floor=floor,
        error=error + UNIT_ROUNDOFF * (sizes[0] + sizes[1]),
        significant_bits=min(later.significant_bits, earlier.significant_bits),
        is_scaled=later.is_scaled and earlier.is_scaled,
    )


def _bounds(left: Matrix, right: Matrix) -> Values:
    """Product of the Frobenius norms of two factors, or of each pair of two stacks."""
    return np.asarray(frobenius_norms(left) * frobenius_norms(right))


def _balanced(left: Matrix, right: Matrix) -> tuple[Matrix, Matrix]:
    """The same product with factors of about equal norm, by powers of two; zeros if it is zero.

    The error bound of products that are joined grows with the norms of the joined factors, so each
    block should be as large in one as in the other.
    """
    norms = frobenius_norms(left), frobenius_norms(right)
    present = (norms[0] * norms[1] != 0) | ~np.isfinite(norms[0] + norms[1])
    ratio = np.where(present, norms[1], 1.0) / np.where(present, norms[0], 1.0)
    power = np.clip(np.round(np.log2(ratio) / 2), -500, 500)
    unit = np.where(np.isfinite(power), np.exp2(power), 1.0)[..., None, None]
    is_there = present[..., None, None]
    return np.where(is_there, left * unit, 0.0), np.where(is_there, right / unit, 0.0)


def _without_opposites(terms: list[LowRank]) -> list[LowRank]:
    """Terms without the pairs in which one is minus the other, factor by factor."""
    kept: list[tuple[tuple[float, float], LowRank]] = []
    for term in terms:
        size = float(np.abs(term.left).sum()), float(np.abs(term.right).sum())
        opposite = next(
            (i for i, (other, one) in enumerate(kept) if other == size and _cancel(one, term)), None
        )
        if opposite is None:
            kept.append((size, term))
        else:
            del kept[opposite]
    return [term for _, term in kept]


def _cancel(one: LowRank, other: LowRank) -> bool:
    return any(
        np.array_equal(one.left, sign * other.left)
        and np.array_equal(one.right, -sign * other.right)
        for sign in (1, -1)
    )
