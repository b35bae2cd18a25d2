"""Spectra of dense matrices: the Gram route with its checks, and QR with an SVD behind it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankscope.spectra.bounds import (
    UNIT_ROUNDOFF,
    agree,
    gram_bound,
    gram_intervals,
    is_resolved,
    svd_bound,
)
from rankscope.spectra.spectrum import Spectrum, Values, no_spectrum


def spectrum(
    values: NDArray[Any], dtype: str, *, storage_floor: float, arithmetic_floor: float = 0.0
) -> Spectrum:
    """Spectrum of a nonempty matrix, shape (m, n).

    Parameters
    ----------
    values, dtype
        The entries, and the name of the format that they were stored in.
    storage_floor
        Largest singular value that the rounding of the entries may bring.
    arithmetic_floor
        The same for the arithmetic that made the entries, where it was not exact.
    """
    scaled, exponent = _scaled(values)
    unit = math.ldexp(1.0, exponent)
    wide = scaled if scaled.shape[0] <= scaled.shape[1] else scaled.T
    with np.errstate(invalid="ignore", over="ignore"):
        gram = wide @ wide.T
    if not math.isfinite(np.trace(gram)):  # any NaN or infinity is in its column's square
        return no_spectrum(values.shape, dtype, "nonfinite")
    floors = storage_floor / unit, arithmetic_floor / unit
    found = _gram_route(scaled, gram, *floors)
    if found is None or not is_resolved(found.values, found.lower, found.upper, found.noise_floor):
        found = _qr_svd_route(scaled, *floors)
    if found is None:
        return no_spectrum(values.shape, dtype, "skipped:decomposition-failed")
    return replace(found, dtype=dtype).times_power_of_two(exponent)


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


def _gram_route(scaled: Values, gram: Values, storage: float, arithmetic: float) -> Spectrum | None:
    """Square roots of the eigenvalues of the small Gram matrix; None if the solver failed."""
    long_side, short_side = max(scaled.shape), min(scaled.shape)
    try:
        squares = np.asarray(np.linalg.eigvalsh(gram)[::-1], np.float64)
    except np.linalg.LinAlgError:
        return None
    trace = float(np.trace(gram))
    energy = float(np.einsum("ij,ij->", gram, gram))
    if not (
        _is_descending(squares)
        and agree(squares.sum(), trace, short_side)
        and agree((squares**2).sum(), energy, short_side)
    ):
        return None
    bound = gram_bound(trace, float(squares[0]), long_side=long_side, short_side=short_side)
    lower, upper = gram_intervals(squares, bound)
    s = np.sqrt(np.maximum(squares, 0))
    return _found(scaled, s, lower, upper, storage, arithmetic, "gram")


def _qr_svd_route(scaled: Values, storage: float, arithmetic: float) -> Spectrum | None:
    """Singular values of the triangular factor; None if the solver failed."""
    tall = scaled if scaled.shape[0] >= scaled.shape[1] else scaled.T
    try:
        triangle = np.asarray(np.linalg.qr(tall, mode="r"))
        s = np.linalg.svd(triangle, compute_uv=False)
    except np.linalg.LinAlgError:
        return None
    energy = float(np.einsum("ij,ij->", scaled, scaled))
    if not (_is_descending(s) and s[-1] >= 0 and agree((s**2).sum(), energy, max(scaled.shape))):
        return None
    error = svd_bound(float(s[0]), long_side=max(scaled.shape))
    lower, upper = np.maximum(s - error, 0), s + error
    if not _encloses_determinant(lower, upper, triangle):
        return None
    return _found(scaled, s, lower, upper, storage, arithmetic, "qr-svd")


def _is_descending(values: Values) -> bool:
    return bool((values[1:] <= values[:-1]).all())


def _encloses_determinant(lower: Values, upper: Values, triangle: Values) -> bool:
    """Whether the intervals allow for Π s = |det R|: the Frobenius norm sees no small s."""
    with np.errstate(divide="ignore"):
        least, most, true = (np.log(x).sum() for x in (lower, upper, np.abs(np.diag(triangle))))
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
