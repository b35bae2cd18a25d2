"""Spectra of products from their factors, alone or in stacks.

With L = Q_L·R_L and Rᵀ = Q_R·R_R, the singular values of L·R are those of R_L·R_Rᵀ, a square
matrix of the inner dimension. By QR, not by the Gram matrices of the factors: those square both
condition numbers, and a badly conditioned adapter would lose its small values.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankscope.spectra import dense
from rankscope.spectra.backends import scaling_exponent
from rankscope.spectra.bounds import Values, Within, agree, product_bound
from rankscope.spectra.matrices import Dense, LowRank, triangular
from rankscope.spectra.rounding import Rounding
from rankscope.spectra.spectrum import Spectrum, no_spectrum

TINY = 2.0**-400  # entries from which squares lose no digits below float64's range


def spectra(matrix: LowRank) -> list[Spectrum]:
    """Spectra of products of inner dimension r < min(m, n), none of which is multiplied out."""
    stack, shape = matrix.stack(), matrix.shape
    left, right, floors, errors = stack.left, stack.right, stack.floors, stack.errors
    most_left, most_right = _largest(left), _largest(right)
    finite = np.isfinite(most_left) & np.isfinite(most_right)
    if not finite.all():
        left, right, floors, errors = left[finite], right[finite], floors[finite], errors[finite]
        most_left, most_right = most_left[finite], most_right[finite]
    left, left_exponent = _scaled(left, most_left)
    right, right_exponent = _scaled(right, most_right)
    exponents = left_exponent + right_exponent
    if exponents.any():
        floors, errors = (np.ldexp(one, -exponents) for one in (floors, errors))
    core = triangular(left) @ triangular(right.mT).mT
    bounds = [
        product_bound(a, b, shape, inner=matrix.inner)
        for a, b in zip(_norms(left), _norms(right), strict=True)
    ]
    decomposed = iter([
        _spectrum(matrix, s, error=bound + error, floor=floor, exponent=exponent)
        for s, bound, error, floor, exponent in zip(
            _values(core), bounds, errors.tolist(), floors.tolist(), exponents.tolist(), strict=True
        )
    ])  # fmt: skip
    spectra = [
        next(decomposed) if ok else no_spectrum(shape, matrix.dtype, "nonfinite") for ok in finite
    ]
    if not stack.before:
        return spectra
    return [replace(one, before=norm) for one, norm in zip(spectra, stack.before, strict=True)]


def multiplied_out(matrix: LowRank) -> list[Spectrum]:
    """Spectra of products whose inner dimension does not cap the rank, formed one at a time."""
    stack = matrix.stack()
    before = stack.before or (None,) * len(stack.left)
    return [
        replace(_multiplied_out(matrix, left, right, floor=floor, error=error), before=norm)
        for left, right, floor, error, norm in zip(
            stack.left, stack.right, stack.floors, stack.errors, before, strict=True
        )
    ]


def _multiplied_out(
    matrix: LowRank, left: NDArray[Any], right: NDArray[Any], *, floor: float, error: float
) -> Spectrum:
    factors = left[None], right[None]
    sizes = [_largest(one) for one in factors]
    if not np.isfinite(sizes).all():
        return no_spectrum(matrix.shape, matrix.dtype, "nonfinite")
    (left, (left_exponent,)), (right, (right_exponent,)) = map(_scaled, factors, sizes)
    (left_norm,), (right_norm,) = _norms(left), _norms(right)
    exponent = int(left_exponent + right_exponent)
    bound = product_bound(left_norm, right_norm, matrix.shape, inner=matrix.inner)
    product = Dense(
        (left @ right)[0],
        matrix.dtype,
        Rounding.by_norm(float(np.ldexp(floor, -exponent)), matrix.significant_bits),
        error=bound + float(np.ldexp(error, -exponent)),
    )
    return dense.spectra([product])[0].times_power_of_two(exponent)


def _values(cores: Values) -> list[Values | None]:
    """Singular values of each of a stack of matrices; None where the solver failed."""
    try:
        values = list(np.linalg.svd(cores, compute_uv=False))
    except np.linalg.LinAlgError:
        if len(cores) == 1:
            return [None]
        return [one for core in cores for one in _values(core[None])]
    return [s if _agree(s, core) else None for s, core in zip(values, cores, strict=True)]


def _agree(s: Values, core: Values) -> bool:
    """Whether the values have the energy of their matrix, however small it is."""
    energy = float(np.vdot(core, core))
    if energy < TINY**2 and (largest := np.abs(core).max(initial=0.0)):
        s, core = s / largest, core / largest
        energy = float(np.vdot(core, core))
    return agree(float(s @ s), energy, len(core))


def _spectrum(
    matrix: LowRank, s: Values | None, *, error: float, floor: float, exponent: int
) -> Spectrum:
    if s is None:
        return no_spectrum(matrix.shape, matrix.dtype, "skipped:decomposition-failed")
    return Spectrum(
        shape=matrix.shape,
        dtype=matrix.dtype,
        values=s,
        bounds=Within(error),
        noise_floor=max(floor, error),
        noise_source="storage" if floor > error else "arithmetic",
        route="low-rank",
        significant_bits=matrix.significant_bits,
    ).times_power_of_two(exponent)


def _largest(factors: NDArray[Any]) -> NDArray[Any]:
    """The largest absolute entry of each factor; not finite if an entry is not."""
    sizes = np.abs(factors).reshape(len(factors), -1)
    return np.asarray(sizes.max(axis=1, initial=0.0))


def _scaled(factors: NDArray[Any], largest: NDArray[Any]) -> tuple[Values, NDArray[np.int32]]:
    """Each factor divided by a power of two, and the powers' exponents: see `scaling_exponent`."""
    exponents = np.array([scaling_exponent(float(one)) for one in largest], np.int32)
    scaled = factors.astype(np.float64)
    if exponents.any():
        scaled /= np.ldexp(1.0, exponents)[:, None, None]
    return scaled, exponents


def _norms(factors: NDArray[Any]) -> list[float]:
    return [float(np.linalg.norm(factor)) for factor in factors]
