"""Spectra of dense matrices: the Gram route with its checks, and QR with an SVD behind it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankscope.spectra.backends import NUMPY, Backend, Gram
from rankscope.spectra.bounds import (
    UNIT_ROUNDOFF,
    agree,
    gram_bound,
    gram_intervals,
    is_resolved,
    svd_bound,
)
from rankscope.spectra.matrices import Dense
from rankscope.spectra.spectrum import Spectrum, Values, no_spectrum


def spectra(matrices: Sequence[Dense], backend: Backend = NUMPY) -> list[Spectrum]:
    """Spectra of nonempty matrices of one shape, which a backend may take together."""
    scaled = [_scaled(matrix.values) for matrix in matrices]
    grams = backend.grams([values for values, _ in scaled])
    return [
        _certified(*one, gram, matrix, backend)
        for one, gram, matrix in zip(scaled, grams, matrices, strict=True)
    ]


def _certified(
    scaled: Values, exponent: int, gram: Gram, matrix: Dense, backend: Backend
) -> Spectrum:
    """The values of the Gram matrix where they resolve what is asked, else those of QR and SVD."""
    shape = scaled.shape[0], scaled.shape[1]
    if not math.isfinite(gram.trace):  # any NaN or infinity is in its column's square
        return no_spectrum(shape, matrix.dtype, "nonfinite")
    storage, arithmetic = (
        float(np.ldexp(floor, -exponent)) for floor in (matrix.rounding.floor, matrix.error)
    )
    found = _gram_route(scaled, gram, storage, arithmetic)
    if found is None or not is_resolved(found.values, found.lower, found.upper, found.noise_floor):
        found = _qr_svd_route(scaled, storage, arithmetic, backend)
    if found is None:
        return no_spectrum(shape, matrix.dtype, "skipped:decomposition-failed")
    found = replace(
        found,
        dtype=matrix.dtype,
        lower=np.maximum(found.lower - arithmetic, 0),
        upper=found.upper + arithmetic,
        significant_bits=matrix.rounding.significant_bits,
        before=matrix.before,
    )
    return found.times_power_of_two(exponent)


def _scaled(values: NDArray[Any]) -> tuple[Values, int]:
    """The entries in float64 over a power of two, and its exponent.

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


def _gram_route(scaled: Values, gram: Gram, storage: float, arithmetic: float) -> Spectrum | None:
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
    lower, upper = gram_intervals(squares, bound)
    s = np.sqrt(np.maximum(squares, 0))
    return _found(scaled, s, lower, upper, storage, arithmetic, "gram")


def _qr_svd_route(
    scaled: Values, storage: float, arithmetic: float, backend: Backend
) -> Spectrum | None:
    """Singular values of the triangular factor; None if the solver failed."""
    triangle = backend.triangle(scaled)
    if triangle is None:
        return None
    s, energy = triangle.values, float(np.einsum("ij,ij->", scaled, scaled))
    if not (_is_descending(s) and s[-1] >= 0 and agree((s**2).sum(), energy, max(scaled.shape))):
        return None
    error = svd_bound(float(s[0]), long_side=max(scaled.shape))
    lower, upper = np.maximum(s - error, 0), s + error
    if not _encloses_determinant(lower, upper, triangle.diagonal):
        return None
    return _found(scaled, s, lower, upper, storage, arithmetic, "qr-svd")


def _is_descending(values: Values) -> bool:
    return bool((values[1:] <= values[:-1]).all())


def _encloses_determinant(lower: Values, upper: Values, diagonal: Values) -> bool:
    """Whether the intervals allow for Π s = |det R|: the Frobenius norm sees no small s."""
    with np.errstate(divide="ignore"):
        least, most, true = (np.log(x).sum() for x in (lower, upper, np.abs(diagonal)))
    rounding = 64 * len(lower) * UNIT_ROUNDOFF
    return bool(least - rounding <= true <= most + rounding)


def _found(
    scaled: Values,
    s: Values,
    lower: Values,
    upper: Values,
    storage: float,
    arithmetic: float,
    route: str,
) -> Spectrum:
    """Wrap up one route's values with the noise floor that they are held against."""
    arithmetic = max(arithmetic, svd_bound(float(s[0]), long_side=max(scaled.shape)))
    return Spectrum(
        shape=scaled.shape,
        dtype="",
        values=s,
        lower=lower,
        upper=upper,
        noise_floor=max(storage, arithmetic),
        noise_source="storage" if storage >= arithmetic else "arithmetic",
        route=route,
    )
