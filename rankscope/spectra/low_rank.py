"""Spectra of products from their factors, alone or in stacks.

With L = Q_L·R_L and Rᵀ = Q_R·R_R, the singular values of L·R are those of R_L·R_Rᵀ, a matrix of
the inner dimension. QR and not the Gram matrices of the factors: those square both condition
numbers, and a badly conditioned adapter would lose its small values.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankscope.spectra import dense
from rankscope.spectra.bounds import product_bound
from rankscope.spectra.spectrum import Spectrum, Values, no_spectrum


def spectra(left: NDArray[Any], right: NDArray[Any], dtype: str) -> list[Spectrum]:
    """Spectra of a stack of products, without multiplying any of them out.

    Parameters
    ----------
    left, right
        Factors, shapes (h, m, r) and (h, r, n), with r < min(m, n).
    dtype
        Name of the format that the factors were stored in; they are taken as exact.
    """
    shape = left.shape[1], right.shape[2]
    finite = [_is_finite(pair) for pair in zip(left, right, strict=True)]
    left, left_unit = _scaled(left[finite])
    right, right_unit = _scaled(right[finite])
    core = _triangular(left) @ _triangular(right.mT).mT
    values = np.linalg.svd(core, compute_uv=False)
    found = (
        _spectrum(shape, dtype, s, product_bound(a, b, shape), unit)
        for s, a, b, unit in zip(
            values, _norms(left), _norms(right), (left_unit * right_unit).tolist(), strict=True
        )
    )
    return [next(found) if ok else no_spectrum(shape, dtype, "nonfinite") for ok in finite]


def multiplied_out(left: NDArray[Any], right: NDArray[Any], dtype: str) -> Spectrum:
    """Spectrum of one product, (m, r) by (r, n), whose inner dimension does not cap the rank."""
    if not _is_finite((left, right)):
        return no_spectrum((left.shape[0], right.shape[1]), dtype, "nonfinite")
    product = np.asarray(left, np.float64) @ np.asarray(right, np.float64)
    (left_norm,), (right_norm,) = _norms(left[None]), _norms(right[None])
    error = product_bound(left_norm, right_norm, (product.shape[0], product.shape[1]))
    found = dense.spectrum(product, dtype, storage_floor=0.0, arithmetic_floor=error)
    return replace(found, lower=np.maximum(found.lower - error, 0), upper=found.upper + error)


def _spectrum(shape: tuple[int, int], dtype: str, s: Values, error: float, unit: float) -> Spectrum:
    s, error = s * unit, error * unit
    lower = np.maximum(s - error, 0)
    return Spectrum(shape, dtype, s, lower, s + error, error, "arithmetic", "low-rank")


def _is_finite(factors: tuple[NDArray[Any], NDArray[Any]]) -> bool:
    return all(bool(np.isfinite(factor).all()) for factor in factors)


def _scaled(factors: NDArray[Any]) -> tuple[Values, Values]:
    """Each factor over a power of two near its largest entry, and those powers."""
    exponents = np.frexp(np.abs(factors).max(axis=(1, 2)))[1]
    units = np.ldexp(1.0, np.clip(exponents, -500, 500))
    return factors.astype(np.float64) / units[:, None, None], units


def _triangular(factors: Values) -> Values:
    return np.asarray(np.linalg.qr(factors, mode="r"))


def _norms(factors: NDArray[Any]) -> list[float]:
    return [float(np.linalg.norm(factor.astype(np.float64))) for factor in factors]
