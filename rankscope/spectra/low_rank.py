"""Spectra of products from their factors, alone or in stacks.

With L = Q_L·R_L and Rᵀ = Q_R·R_R, the singular values of L·R are those of R_L·R_Rᵀ, a matrix of
the inner dimension. QR and not the Gram matrices of the factors: those square both condition
numbers, and a badly conditioned adapter would lose its small values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankscope.spectra import dense
from rankscope.spectra.bounds import agree, product_bound
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
    (_, rows, inner), columns = left.shape, right.shape[2]
    shape = rows, columns
    finite = [_is_finite(pair) for pair in zip(left, right, strict=True)]
    left, left_exponent = _scaled(left[finite])
    right, right_exponent = _scaled(right[finite])
    core = _triangular(left) @ _triangular(right.mT).mT
    bounds = [
        product_bound(a, b, shape, inner=inner)
        for a, b in zip(_norms(left), _norms(right), strict=True)
    ]
    found = (
        _spectrum(shape, dtype, *one)
        for one in zip(_values(core), bounds, left_exponent + right_exponent, strict=True)
    )
    return [next(found) if ok else no_spectrum(shape, dtype, "nonfinite") for ok in finite]


def multiplied_out(left: NDArray[Any], right: NDArray[Any], dtype: str) -> Spectrum:
    """Spectrum of one product, (m, r) by (r, n), whose inner dimension does not cap the rank."""
    if not _is_finite((left, right)):
        return no_spectrum((left.shape[0], right.shape[1]), dtype, "nonfinite")
    (left, (left_exponent,)), (right, (right_exponent,)) = _scaled(left[None]), _scaled(right[None])
    product = (left @ right)[0]
    (left_norm,), (right_norm,) = _norms(left), _norms(right)
    shape = product.shape[0], product.shape[1]
    error = product_bound(left_norm, right_norm, shape, inner=left.shape[2])
    found = dense.product_spectrum(product, dtype, error=error)
    return found.times_power_of_two(int(left_exponent + right_exponent))


def _values(cores: Values) -> list[Values | None]:
    """Singular values of a stack of matrices; None for those where the solver failed."""
    try:
        found = list(np.linalg.svd(cores, compute_uv=False))
    except np.linalg.LinAlgError:
        if len(cores) == 1:
            return [None]
        return [one for core in cores for one in _values(core[None])]
    return [
        s if agree((s**2).sum(), (core**2).sum(), len(core)) else None
        for s, core in zip(found, cores, strict=True)
    ]


def _spectrum(
    shape: tuple[int, int], dtype: str, s: Values | None, error: float, exponent: int
) -> Spectrum:
    if s is None:
        return no_spectrum(shape, dtype, "skipped:decomposition-failed")
    lower = np.maximum(s - error, 0)
    found = Spectrum(shape, dtype, s, lower, s + error, error, "arithmetic", "low-rank")
    return found.times_power_of_two(int(exponent))


def _is_finite(factors: tuple[NDArray[Any], NDArray[Any]]) -> bool:
    return all(bool(np.isfinite(factor).all()) for factor in factors)


def _scaled(factors: NDArray[Any]) -> tuple[Values, NDArray[np.int32]]:
    """Each factor over a power of two near its largest entry, and the exponents of those powers."""
    exponents = np.frexp(np.abs(factors).max(axis=(1, 2), initial=0.0))[1]
    exponents = np.clip(exponents, -1000, 1000)  # so that no power leaves float64
    units = np.ldexp(1.0, exponents)
    return factors.astype(np.float64) / units[:, None, None], exponents


def _triangular(factors: Values) -> Values:
    return np.asarray(np.linalg.qr(factors, mode="r"))


def _norms(factors: NDArray[Any]) -> list[float]:
    return [float(np.linalg.norm(factor)) for factor in factors]
