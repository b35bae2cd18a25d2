"""Spectra of dense matrices by three routes with checks, each taken where the one before fails.

They are the Gram matrix, the Gram matrix of an inverse for the small values, and QR with an SVD.
Each gives singular values and their intervals; what storing and forming the matrix rounded comes on
top, and sets the noise floor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from rankscope.spectra.backends import NUMPY, Backend, Gram, HeldT, Inverse, Triangle
from rankscope.spectra.bounds import (
    UNIT_ROUNDOFF,
    Ends,
    Values,
    Within,
    agree,
    gram_bound,
    inverse_bound,
    is_resolved,
    svd_bound,
)
from rankscope.spectra.matrices import Dense
from rankscope.spectra.spectrum import Spectrum, no_spectrum

INVERSE_FROM = 512  # the short side from which an inverse takes less time than QR and an SVD
INVERSE_WITHIN = 1e-4  # an inverse that is known less well than this is not used


class Decomposed(NamedTuple):
    """Singular values by one route, and how far the true ones may be."""

    values: Values
    bounds: Within | Ends
    route: str


def spectra(matrices: Sequence[Dense], backend: Backend[Any] = NUMPY) -> list[Spectrum]:
    """Spectra of nonempty matrices of one shape, which a backend may process together."""
    scaled = [backend.in_range(one.values, is_ordinary=one.is_ordinary) for one in matrices]
    grams = backend.grams([values for values, _ in scaled])
    return [
        _certified(matrix, values, gram, backend, exponent=exponent)
        for matrix, (values, exponent), gram in zip(matrices, scaled, grams, strict=True)
    ]


def _certified(
    matrix: Dense, scaled: HeldT, gram: Gram, backend: Backend[HeldT], *, exponent: int
) -> Spectrum:
    """Values by the first route that resolves what is asked, or those of QR and SVD."""
    shape = matrix.shape
    if not math.isfinite(gram.trace):  # any NaN or infinity is in its column's square
        return no_spectrum(shape, matrix.dtype, "nonfinite")
    storage, arithmetic = (
        float(np.ldexp(floor, -exponent)) for floor in (matrix.rounding.floor, matrix.error)
    )

    def noise_of(values: Values) -> tuple[float, str]:
        computed = max(arithmetic, svd_bound(float(values[0]), long_side=max(shape)))
        return max(storage, computed), "storage" if storage >= computed else "arithmetic"

    def is_enough(found: Decomposed) -> bool:
        ends = found.bounds.ends(found.values)
        return is_resolved(found.values, *ends, noise_of(found.values)[0])

    decomposed = _by_gram(shape, gram)
    if decomposed and not is_enough(decomposed):
        decomposed = _by_inverse(matrix.shape, gram, decomposed, lambda: backend.inverse(scaled))
        decomposed = decomposed if decomposed and is_enough(decomposed) else None
    if decomposed is None:
        decomposed = _by_svd(shape, backend.triangle(scaled))
    if decomposed is None:
        return no_spectrum(shape, matrix.dtype, "skipped:decomposition-failed")
    floor, source = noise_of(decomposed.values)
    return Spectrum(
        shape=shape,
        dtype=matrix.dtype,
        values=decomposed.values,
        bounds=decomposed.bounds.widened(arithmetic),
        noise_floor=floor,
        noise_source=source,
        route=decomposed.route,
        significant_bits=matrix.rounding.significant_bits,
        before=matrix.before,
        cosine=matrix.cosine,
        entries=matrix.entries,
    ).times_power_of_two(exponent)


def _by_gram(shape: tuple[int, int], gram: Gram) -> Decomposed | None:
    """Square roots of the eigenvalues of the small Gram matrix; None if the solver failed."""
    long_side, short_side = max(shape), min(shape)
    squares = gram.squares
    if squares is None or not (
        _is_descending(squares)
        and agree(squares.sum(), gram.trace, short_side)
        and agree((squares**2).sum(), gram.energy, short_side)
    ):
        return None
    bound = gram_bound(gram.trace, float(squares[0]), long_side=long_side, short_side=short_side)
    # Clamp and never take the absolute value: an unresolved zero comes out negative half the time.
    values = np.sqrt(np.maximum(squares, 0))
    return Decomposed(values, Within.of_squares(bound, float(values[0])), "gram")


def _by_inverse(
    shape: tuple[int, int],
    gram: Gram,
    by_gram: Decomposed,
    invert: Callable[[], Inverse | None],
) -> Decomposed | None:
    """Small values from an inverse, large ones as they were; None if it is not known well."""
    long_side, short_side = max(shape), min(shape)
    squares = by_gram.values**2
    # Its error is about u·λ₁/λ_q, found from 512 to 4096: where that is too large, it is not tried.
    if short_side < INVERSE_FROM or squares[-1] * INVERSE_WITHIN < UNIT_ROUNDOFF * squares[0]:
        return None
    inverse = invert()
    found = inverse and _by_gram((short_side, short_side), inverse.gram)
    if not (inverse and found):
        return None
    norms = math.sqrt(gram.trace) * math.sqrt(inverse.gram.trace)
    sides = {"long_side": long_side, "short_side": short_side}
    bound = inverse_bound(inverse.residual, inverse.energy, norms, **sides)
    if not bound <= INVERSE_WITHIN:
        return None
    smallest, largest = found.bounds.ends(found.values)
    with np.errstate(divide="ignore", over="ignore"):
        values = (1 / found.values)[::-1]
        ends = Ends(((1 - bound) / largest)[::-1], ((1 + bound) / smallest)[::-1])
    return _narrower(by_gram, Decomposed(values, ends, "inverse"))


def _narrower(first: Decomposed, second: Decomposed) -> Decomposed | None:
    """Each value by the route that knows it better; None if the two exclude each other."""
    (lower, upper), (low, high) = (one.bounds.ends(one.values) for one in (first, second))
    ends = Ends(np.maximum(lower, low), np.minimum(upper, high))
    if not (ends.lower <= ends.upper).all():
        return None
    values = np.where(high - low < upper - lower, second.values, first.values)
    # Two orders that are mixed may not be one: sorted values are within sorted ends.
    values = np.sort(values.clip(ends.lower, ends.upper))[::-1]
    return Decomposed(values, ends, second.route)


def _by_svd(shape: tuple[int, int], triangle: Triangle | None) -> Decomposed | None:
    """Singular values of the triangular factor; None if the solver failed."""
    if triangle is None:
        return None
    values = triangle.values
    if not (
        _is_descending(values)
        and values[-1] >= 0
        and agree((values**2).sum(), triangle.energy, max(shape))
    ):
        return None
    bounds = Within(svd_bound(float(values[0]), long_side=max(shape)))
    if not _encloses_determinant(*bounds.ends(values), triangle.diagonal):
        return None
    return Decomposed(values, bounds, "qr-svd")


def _is_descending(values: Values) -> bool:
    return bool((values[1:] <= values[:-1]).all())


def _encloses_determinant(lower: Values, upper: Values, diagonal: Values) -> bool:
    """Whether the intervals allow for Π s = |det R|: the Frobenius norm sees no small value."""
    with np.errstate(divide="ignore"):
        least, most, true = (np.log(x).sum() for x in (lower, upper, np.abs(diagonal)))
    rounding = 64 * len(lower) * UNIT_ROUNDOFF
    return bool(least - rounding <= true <= most + rounding)
