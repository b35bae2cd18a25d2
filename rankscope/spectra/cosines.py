"""Cosine of two changes of one matrix, dense or low-rank, with a bound on its error."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from rankscope.spectra.bounds import UNIT_ROUNDOFF
from rankscope.spectra.matrices import BLOCK, Dense, LowRank, Matrix, norm_of
from rankscope.spectra.spectrum import Cosine, Norm

Change = Dense | LowRank
KNOWN_TO = 0.01


def cosine_of(later: Change, earlier: Change, shared: float | None) -> Cosine | None:
    """Cosine ⟨A, B⟩/(‖A‖·‖B‖) of two changes, in [−1, 1]; of products from their factors.

    Parameters
    ----------
    later, earlier
        The changes, of one shape; not stacks.
    shared
        What the rounding of the matrix between them adds to ⟨A, B⟩ on average
        (`rankscope.spectra.shared_rounding`); None if that is not known.

    Returns
    -------
    None where the cosine is not known to 0.01, or not defined: a change is zero or not finite.

    Notes
    -----
    If a change is off by E, its direction is off by at most 2·‖E‖/‖A‖, and so is the cosine. With
    the changes divided by their norms, ⟨A, B⟩ is a sum of mn products of float64, which errs by at
    most mn·u; for products see `_of_factors`.
    """
    norms = _norm(later), _norm(earlier)
    if not are_sizes(norms):
        return None
    value, bound = _normalised(later, earlier, norms[0].value, norms[1].value)
    return known_cosine(value, bound, norms, shared)


def are_sizes(norms: Sequence[Norm]) -> bool:
    """Whether changes of these norms have a direction."""
    return all(0 < norm.value < math.inf for norm in norms)


def known_cosine(
    value: float, bound: float, norms: Sequence[Norm], shared: float | None
) -> Cosine | None:
    """The cosine of two changes where it is known well enough: see `cosine_of`.

    Parameters
    ----------
    value, bound
        ⟨A, B⟩ of the changes divided by their norms, and a bound on its error.
    """
    error = bound + 2.1 * sum(norm.error / norm.value for norm in norms)
    if not (math.isfinite(value) and error <= KNOWN_TO):
        return None
    bias = None if shared is None else shared / norms[0].value / norms[1].value
    if bias is not None and not math.isfinite(bias):
        bias = None
    return Cosine(min(max(value, -1.0), 1.0), error, bias)


def _norm(change: Change) -> Norm:
    """Norm of a change; NaN where an entry is not finite."""
    if isinstance(change, LowRank):
        is_finite = all(bool(np.isfinite(part).all()) for part in (change.left, change.right))
        return change.norms()[0] if is_finite else Norm(math.nan, math.nan)
    is_finite = bool(np.isfinite(change.values).all())
    return norm_of(change.values, change.error) if is_finite else Norm(math.nan, math.nan)


def _normalised(one: Change, other: Change, size: float, other_size: float) -> tuple[float, float]:
    """⟨A, B⟩ of changes divided by their norms, and a bound on its error."""
    if isinstance(one, LowRank):
        if isinstance(other, LowRank):
            return _of_factors(one, other, size, other_size)
        return _mixed(other, one, other_size, size)
    if isinstance(other, LowRank):
        return _mixed(one, other, size, other_size)
    total = 0.0
    rows = max(1, BLOCK // max(one.shape[1], 1))
    for start in range(0, one.shape[0], rows):
        part = slice(start, start + rows)
        total += float(np.vdot(one.values[part] / size, other.values[part] / other_size))
    return total, product_sum_bound(one.values.size)


def product_sum_bound(count: int) -> float:
    """Bound on the error of ⟨A, B⟩ of two matrices of norm 1, of so many entries."""
    return (count + 8) * UNIT_ROUNDOFF


def _of_factors(
    one: LowRank, other: LowRank, size: float, other_size: float
) -> tuple[float, float]:
    """The sum of all entries of (L₁ᵀL₂) ∘ (R₁R₂ᵀ), which errs by (m + n + r₁r₂)·u·‖L₁‖…‖R₂‖."""
    left, right, grown = _unit_factors(one, size)
    left2, right2, grown2 = _unit_factors(other, other_size)
    terms = sum(one.shape) + one.inner * other.inner + 16
    total = float(((left.T @ left2) * (right @ right2.T)).sum())
    return total * grown * grown2, terms * UNIT_ROUNDOFF * grown * grown2


def _mixed(dense: Dense, product: LowRank, size: float, other_size: float) -> tuple[float, float]:
    """The sum of all entries of L ∘ (A·Rᵀ), which errs by (n + m·r)·u·‖A‖·‖L‖·‖R‖."""
    left, right, grown = _unit_factors(product, other_size)
    terms = dense.shape[1] + dense.shape[0] * product.inner + 16
    total = float((left * ((dense.values / size) @ right.T)).sum())
    return total * grown, terms * UNIT_ROUNDOFF * grown


def _unit_factors(product: LowRank, size: float) -> tuple[Matrix, Matrix, float]:
    """The factors divided by their norms, and the product of these over that of the product."""
    norms = norm_of(product.left).value, norm_of(product.right).value
    return product.left / norms[0], product.right / norms[1], norms[0] / size * norms[1]
