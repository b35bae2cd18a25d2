"""Singular values with certificates: the public functions, and which route a matrix takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from rankscope.spectra import dense, kronecker, low_rank
from rankscope.spectra.backends import NUMPY, Backend
from rankscope.spectra.bounds import Values
from rankscope.spectra.matrices import Decomposable, Dense, Kronecker, LowRank
from rankscope.spectra.spectrum import Spectrum, no_spectrum


def singular_values(matrix: ArrayLike | Decomposable) -> Values:
    """Singular values of a matrix, or of a product given by its factors.

    Computed in float64 from the Gram matrix of the small side, and by QR and a float64 SVD where
    that cannot tell a value from rounding. `LowRank` and `Kronecker` are not multiplied out.

    Parameters
    ----------
    matrix
        An array of numbers, shape ``(m, n)``; `Dense`; `LowRank`; or `Kronecker`.

    Returns
    -------
    Singular values, descending, float64, shape ``(min(m, n),)``; for a product of inner dimension
    r, shape ``(min(m, n, r),)``, the others being exactly zero.

    Raises
    ------
    ValueError
        If the array has not two axes, or holds NaN or infinity: then it has no singular values.

    See Also
    --------
    spectrum : the same with intervals, noise floor and route.
    """
    found = spectrum(matrix)
    if found.status not in ("ok", "zero", "vector", "empty"):
        raise ValueError(f"a matrix of shape {found.shape} has no singular values: {found.status}")
    return found.values


def spectrum(matrix: ArrayLike | Decomposable) -> Spectrum:
    """Singular values of one matrix with all that is certain about them; see `Spectrum`.

    Raises
    ------
    ValueError
        If the array has not two axes, or is a stack of products: `spectra` takes those.
    """
    if isinstance(matrix, LowRank) and matrix.left.ndim == 3:
        raise ValueError(f"this is a stack of {len(matrix.left)} products: use spectra")
    if not isinstance(matrix, (Dense, LowRank, Kronecker)):
        array = np.asarray(matrix)
        if array.dtype.kind == "c":
            raise ValueError(f"a matrix of {array.dtype}: only real ones are decomposed here")
        if array.ndim != 2:
            raise ValueError(f"a matrix has two axes: this array has shape {array.shape}")
        matrix = Dense.stored(array if array.dtype.kind == "f" else array.astype(np.float64))
    return spectra(matrix)[0]


def spectra(matrix: Decomposable) -> list[Spectrum]:
    """Spectra of a matrix or a product (one), or of a stack of products (one for each)."""
    if isinstance(matrix, Dense):
        return stack_spectra([matrix])
    if isinstance(matrix, Kronecker):
        (first,), (second,) = spectra(matrix.first), spectra(matrix.second)
        found = [kronecker.product_of(first, second, matrix.dtype)]
    else:
        found = _of_products(matrix)
    return [replace(_with_status(one), is_scaled=matrix.is_scaled) for one in found]


def stack_spectra(matrices: Sequence[Dense], backend: Backend = NUMPY) -> list[Spectrum]:
    """Spectra of matrices of one shape, which the backend may take together.

    By the Gram matrix, and by QR and SVD where that does not resolve what is asked.
    """
    if 0 in matrices[0].shape:
        return [no_spectrum(matrix.shape, matrix.dtype, "empty") for matrix in matrices]
    return [_with_status(found) for found in dense.spectra(matrices, backend)]


def _of_products(matrix: LowRank) -> list[Spectrum]:
    """By the factors while they cap the rank; else multiplied out, one at a time."""
    if 0 in matrix.shape or matrix.inner == 0:
        count = len(matrix.left) if matrix.left.ndim == 3 else 1
        return [no_spectrum(matrix.shape, matrix.dtype, "empty")] * count
    if matrix.inner < min(matrix.shape):
        return low_rank.spectra(matrix)
    return low_rank.multiplied_out(matrix)


def _with_status(found: Spectrum) -> Spectrum:
    if found.status != "ok":
        return found
    if found.values[0] == 0:
        return replace(found, status="zero")
    return replace(found, status="vector") if min(found.shape) == 1 else found
