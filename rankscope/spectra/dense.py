"""Spectra of dense matrices: the Gram route with its checks, and QR with an SVD behind it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankscope.spectra.bounds import (
    UNIT_ROUNDOFF,
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
    largest = max(float(values.max()), -float(values.min()))
    if not math.isfinite(largest):
        return no_spectrum(values.shape, dtype, "nonfinite")
    unit = _power_of_two_above(largest)
    scaled = np.multiply(values, 1 / unit, dtype=np.float64)  # exact: only exponents change
    floors = storage_floor / unit, arithmetic_floor / unit
    found = _gram_route(scaled, *floors)
    if found is None or not is_resolved(found.values, found.lower, found.upper, found.noise_floor):
        found = _qr_svd_route(scaled, *floors)
    if found is None:
        return no_spectrum(values.shape, dtype, "skipped:decomposition-failed")
    return replace(
        found,
        dtype=dtype,
        values=found.values * unit,
        lower=found.lower * unit,
        upper=found.upper * unit,
        noise_floor=found.noise_floor * unit,
    )


def _power_of_two_above(largest: float) -> float:
    # Within ±1000, so that neither it nor its inverse leaves float64 for subnormal matrices.
    return math.ldexp(1.0, min(max(math.frexp(largest)[1], -1000), 1000))


def _gram_route(scaled: Values, storage: float, arithmetic: float) -> Spectrum | None:
    """Square roots of the eigenvalues of the small Gram matrix; None if the solver failed."""
    long_side, short_side = max(scaled.shape), min(scaled.shape)
    wide = scaled if scaled.shape[0] == short_side else scaled.T
    gram = wide @ wide.T
    try:
        squares = np.asarray(np.linalg.eigvalsh(gram)[::-1], np.float64)
    except np.linalg.LinAlgError:
        return None
    trace = float(np.trace(gram))
    if not _agree(squares.sum(), trace, short_side) or not _agree(
        (squares**2).sum(), np.einsum("ij,ij->", gram, gram), short_side
    ):
        return None
    bound = gram_bound(trace, float(squares[0]), long_side=long_side, short_side=short_side)
    lower, upper = gram_intervals(squares, bound)
    return _found(
        scaled, np.sqrt(np.maximum(squares, 0)), lower, upper, storage, arithmetic, "gram"
    )


def _qr_svd_route(scaled: Values, storage: float, arithmetic: float) -> Spectrum | None:
    """Singular values of the triangular factor; None if the solver failed."""
    tall = scaled if scaled.shape[0] >= scaled.shape[1] else scaled.T
    try:
        s = np.linalg.svd(np.linalg.qr(tall, mode="r"), compute_uv=False)
    except np.linalg.LinAlgError:
        return None
    if not _agree((s**2).sum(), np.einsum("ij,ij->", scaled, scaled), max(scaled.shape)):
        return None
    error = svd_bound(float(s[0]), long_side=max(scaled.shape))
    return _found(scaled, s, np.maximum(s - error, 0), s + error, storage, arithmetic, "qr-svd")


def _agree(found: float, expected: float, size: int) -> bool:
    """Whether two sums that are equal in exact arithmetic are equal up to rounding.

    Both the trace and the Frobenius norm are checked: a solver that hands back the diagonal as
    eigenvalues, as one GPU library did, passes the first and fails the second.
    """
    return bool(abs(found - expected) <= 64 * size * UNIT_ROUNDOFF * abs(expected))


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
