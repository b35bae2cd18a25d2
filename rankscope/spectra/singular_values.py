"""Singular values with certificates: the public functions, and the route that a matrix takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rankscope.spectra import dense, kronecker, low_rank
from rankscope.spectra.backends import NUMPY, Backend
from rankscope.spectra.bounds import Values
from rankscope.spectra.matrices import Decomposable, Dense, Kronecker, LowRank, as_array
from rankscope.spectra.spectrum import Spectrum, no_spectrum


def singular_values(matrix: ArrayLike | Decomposable) -> Values:
    """Singular values of a matrix, or of a product given by its factors.

    They are computed in float64 from the Gram matrix of the small side, or by QR and a float64 SVD
    where that does not separate a value from rounding. `LowRank` and `Kronecker` are not multiplied
    out.

    Parameters
    ----------
    matrix
        An array or tensor of numbers, shape ``(m, n)``; `Dense`; `LowRank`; or `Kronecker`.

    Returns
    -------
    Singular values, descending, float64, shape ``(min(m, n),)``. A product of inner dimension r has
    shape ``(min(m, n, r),)``: its other singular values are exactly zero.

    Raises
    ------
    ValueError
        If the array does not have two axes, or holds NaN or infinity, and so no singular values.

    See Also
    --------
    spectrum : the same with intervals, noise floor and route.

    Examples
    --------
    >>> import numpy as np, rankscope as rs
    >>> rs.singular_values(np.diag([3.0, 1.0, 2.0])).round(6)
    array([3., 2., 1.])
    >>> rs.singular_values(rs.LowRank(np.ones((50, 1)), np.ones((1, 50)))).round(6)
    array([50.])
    """
    result = spectrum(matrix)
    if result.status not in ("ok", "zero", "vector", "empty"):
        message = f"a matrix of shape {result.shape} has no singular values: {result.status}"
        raise ValueError(message)
    return result.values


def spectrum(matrix: ArrayLike | Decomposable) -> Spectrum:
    """Singular values of one matrix with intervals, noise floor and route; see `Spectrum`.

    Parameters
    ----------
    matrix
        As for `singular_values`.

    Raises
    ------
    ValueError
        If the array does not have two axes or is complex, or the matrix is a stack of products.

    Examples
    --------
    A product of inner dimension 2 that was multiplied out and stored in float32 has full rank, but
    only 2 singular values are above what that rounding may produce:

    >>> import numpy as np, rankscope as rs
    >>> rng = np.random.default_rng(0)
    >>> product = rng.normal(size=(48, 2)) @ rng.normal(size=(2, 96))
    >>> found = rs.spectrum(product.astype(np.float32))
    >>> int((found.lower > found.noise_floor).sum()), found.noise_source
    (2, 'storage')
    """
    return spectra(decomposable(matrix))[0]


def decomposable(matrix: ArrayLike | Decomposable) -> Decomposable:
    """The one matrix or product that a caller gave.

    Raises
    ------
    ValueError
        As for `spectrum`.
    """
    if isinstance(matrix, LowRank) and matrix.left.ndim == 3:
        raise ValueError(f"this is a stack of {len(matrix.left)} products: pass one of them")
    if not isinstance(matrix, (Dense, LowRank, Kronecker)):
        array = as_array(matrix)
        if array.dtype.kind == "c":
            raise ValueError(f"a matrix of {array.dtype}: only real matrices are decomposed here")
        if array.ndim != 2:
            raise ValueError(f"a matrix has two axes: this array has shape {array.shape}")
        matrix = Dense.stored(array if array.dtype.kind == "f" else array.astype(np.float64))
    return matrix


def spectra(matrix: Decomposable) -> list[Spectrum]:
    """Spectra of a matrix or product (a list of one), or of a stack of products (one for each)."""
    if isinstance(matrix, Dense):
        return stack_spectra([matrix])
    if isinstance(matrix, Kronecker):
        (first,), (second,) = spectra(matrix.first), spectra(matrix.second)
        results = [kronecker.product_of(first, second, matrix.dtype)]
    else:
        results = _of_products(matrix)
        if matrix.cosine is not None:
            results = [replace(one, cosine=matrix.cosine) for one in results]
    results = [_with_status(one) for one in results]
    if matrix.is_scaled:
        return results
    return [replace(one, is_scaled=False) for one in results]


def stack_spectra(matrices: Sequence[Dense], backend: Backend[Any] = NUMPY) -> list[Spectrum]:
    """Spectra of matrices of one shape, which the backend may process together.

    By the Gram matrix, or by QR and SVD where that leaves a question open.
    """
    if 0 in matrices[0].shape:
        return [no_spectrum(matrix.shape, matrix.dtype, "empty") for matrix in matrices]
    return [_with_status(result) for result in dense.spectra(matrices, backend)]


def _of_products(matrix: LowRank) -> list[Spectrum]:
    """By the factors where they cap the rank; otherwise multiplied out, one at a time."""
    if 0 in matrix.shape or matrix.inner == 0:
        count = len(matrix.left) if matrix.left.ndim == 3 else 1
        return [no_spectrum(matrix.shape, matrix.dtype, "empty")] * count
    if matrix.inner < min(matrix.shape):
        return low_rank.spectra(matrix)
    return low_rank.multiplied_out(matrix)


def _with_status(result: Spectrum) -> Spectrum:
    if result.status != "ok":
        return result
    if result.values[0] == 0:
        return replace(result, status="zero")
    return replace(result, status="vector") if min(result.shape) == 1 else result
