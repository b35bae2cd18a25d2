"""Spectra of dense matrices: by the Gram matrix with checks, and by QR and an SVD as second route.

Both routes give singular values and one bound for all of them; what storing and forming the matrix
rounded comes on top, and sets the noise floor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rankscope.spectra.backends import NUMPY, Backend, Gram
from rankscope.spectra.bounds import (
    UNIT_ROUNDOFF,
    Values,
    Within,
    agree,
    gram_bound,
    is_resolved,
    svd_bound,
)
from rankscope.spectra.matrices import Dense
from rankscope.spectra.spectrum import Spectrum, no_spectrum


class Decomposed(NamedTuple):
    """Singular values by one route, and how far the true ones may be."""

    values: Values
    bounds: Within
    route: str


def spectra(matrices: Sequence[Dense], backend: Backend = NUMPY) -> list[Spectrum]:
    """Spectra of nonempty matrices of one shape, which a backend may process together."""
    scaled = [in_range(matrix.values) for matrix in matrices]
    grams = backend.grams([values for values, _ in scaled])
    return [
        _certified(matrix, values, gram, backend, exponent=exponent)
        for matrix, (values, exponent), gram in zip(matrices, scaled, grams, strict=True)
    ]


def _certified(
    matrix: Dense, scaled: Values, gram: Gram, backend: Backend, *, exponent: int
) -> Spectrum:
    """Values of the Gram matrix where they resolve what is asked, otherwise those of QR and SVD."""
    shape = scaled.shape[0], scaled.shape[1]
    if not math.isfinite(gram.trace):  # any NaN or infinity is in its column's square
        return no_spectrum(shape, matrix.dtype, "nonfinite")
    storage, arithmetic = (
        float(np.ldexp(floor, -exponent)) for floor in (matrix.rounding.floor, matrix.error)
    )

    def noise_of(values: Values) -> tuple[float, str]:
        computed = max(arithmetic, svd_bound(float(values[0]), long_side=max(shape)))
        return max(storage, computed), "storage" if storage >= computed else "arithmetic"

    decomposed = _by_gram(scaled, gram)
    if decomposed is None or not is_resolved(
        decomposed.values,
        *decomposed.bounds.ends(decomposed.values),
        noise_of(decomposed.values)[0],
    ):
        decomposed = _by_svd(scaled, backend)
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


def in_range(values: NDArray[Any]) -> tuple[Values, int]:
    """The entries in float64 divided by a power of two, and its exponent; not of an empty matrix.

    Squares of float64 entries may leave its range; those of the narrower formats cannot.
    """
    if values.dtype != np.float64:
        return values.astype(np.float64), 0
    largest = max(float(values.max()), -float(values.min()))
    if not math.isfinite(largest):
        return values, 0
    # Within ±1000, so that neither it nor its inverse leaves float64 for subnormal matrices.
    exponent = min(max(math.frexp(largest)[1], -1000), 1000)
    return values * math.ldexp(1.0, -exponent), exponent


def _by_gram(scaled: Values, gram: Gram) -> Decomposed | None:
    """Square roots of the eigenvalues of the small Gram matrix; None if the solver failed."""
    long_side, short_side = max(scaled.shape), min(scaled.shape)
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


def _by_svd(scaled: Values, backend: Backend) -> Decomposed | None:
    """Singular values of the triangular factor; None if the solver failed."""
    triangle = backend.triangle(scaled)
    if triangle is None:
        return None
    values, energy = triangle.values, float(np.einsum("ij,ij->", scaled, scaled))
    if not (
        _is_descending(values)
        and values[-1] >= 0
        and agree((values**2).sum(), energy, max(scaled.shape))
    ):
        return None
    bounds = Within(svd_bound(float(values[0]), long_side=max(scaled.shape)))
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
