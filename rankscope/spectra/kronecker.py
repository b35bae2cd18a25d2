"""Spectra of Kronecker products: every value of one factor times every value of the other.

If A = U₁S₁V₁ᵀ and B = U₂S₂V₂ᵀ, then A ⊗ B = (U₁⊗U₂)(S₁⊗S₂)(V₁⊗V₂)ᵀ. Multiplying the factors'
intervals gives those of the products; sorted lower and upper ends enclose the sorted true values.
"""

from __future__ import annotations

import numpy as np

from rankscope.spectra.bounds import UNIT_ROUNDOFF, Ends, Values
from rankscope.spectra.spectrum import Spectrum, no_spectrum

KNOWN = ("ok", "zero", "vector")


def product_of(first: Spectrum, second: Spectrum, dtype: str) -> Spectrum:
    """Spectrum of the Kronecker product of two matrices with these spectra.

    The noise floor follows from those of the factors, whether of storage or of the arithmetic:
    f₁·‖B‖ + ‖A‖·f₂ + f₁·f₂.
    """
    shape = first.shape[0] * second.shape[0], first.shape[1] * second.shape[1]
    for factor in (first, second):
        if factor.status not in KNOWN:
            return no_spectrum(shape, dtype, factor.status)
    with np.errstate(over="ignore"):
        values = _all(first.values, second.values)
        lower = _all(first.lower, second.lower) * (1 - 2 * UNIT_ROUNDOFF)
        upper = _all(first.upper, second.upper) * (1 + 2 * UNIT_ROUNDOFF)
        floor = (
            first.noise_floor * second.upper[0]
            + second.noise_floor * first.upper[0]
            + first.noise_floor * second.noise_floor
        )
    if not np.isfinite(upper).all():
        return no_spectrum(shape, dtype, "skipped:overflow")
    return Spectrum(
        shape,
        dtype,
        values,
        Ends(lower, upper),
        float(floor),
        "storage" if "storage" in (first.noise_source, second.noise_source) else "arithmetic",
        "kronecker",
        significant_bits=min(first.significant_bits, second.significant_bits),
    )


def _all(first: Values, second: Values) -> Values:
    return np.sort(np.multiply.outer(first, second).ravel())[::-1]
