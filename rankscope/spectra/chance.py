"""What chance alone would do to singular subspaces: the null to compare every overlap with.

A change without content, Gaussian and of the same norm, also turns subspaces; and two unrelated
subspaces still overlap. Legend as in `rankscope.spectra.bases`; σ is the standard deviation of an
entry of the change, D.
"""

from __future__ import annotations

import hashlib
import math
from typing import Literal, get_args

import numpy as np

from rankscope.spectra.bounds import Values

Side = Literal["left", "right"]
SIDES: tuple[Side, ...] = get_args(Side)
SHARE_OF_GAP = 0.25  # up to here the first order is within a few hundredths of a simulation


def random_overlap(k: int, dimensions: int) -> float:
    """Expected ‖UᵀU′‖²_F/k of two independent random k-dimensional subspaces: k over dimensions."""
    return k / dimensions


def deviation(change_norm: float, shape: tuple[int, int]) -> float:
    """σ of a Gaussian change with the expected squared Frobenius norm of a given change."""
    return change_norm / math.sqrt(shape[0] * shape[1])


def spectral_edge(sigma: float, shape: tuple[int, int]) -> float:
    """Spectral norm of a large Gaussian matrix, σ(√m + √n)."""
    return sigma * (math.sqrt(shape[0]) + math.sqrt(shape[1]))


def is_first_order(sigma: float, shape: tuple[int, int], gap: float) -> bool:
    """Whether a change is small enough against the gap for `first_order_overlap` to hold."""
    return spectral_edge(sigma, shape) <= SHARE_OF_GAP * gap


def first_order_overlap(
    s: Values, k: int, shape: tuple[int, int], side: Side, sigma: float
) -> float:
    """Expected overlap of the leading k-subspaces of A and A + D, D Gaussian, to first order in D.

    D turns u_i towards u_j by [s_i u_jᵀDv_i + s_j u_iᵀDv_j]/(s_i² − s_j²), of variance
    σ²(s_i² + s_j²)/(s_i² − s_j²)², and into each dimension that no singular vector of the side
    reaches with variance σ²/s_i². What leaves the subspace, i ≤ k < j, is lost to the overlap.

    Parameters
    ----------
    s
        All singular values of A, (q,), with s_k > s_{k+1}; those that are absent are zero.
    k
        Size of the subspace, less than q or than the dimensions of the side.
    shape, side
        Shape of A, and which of its subspaces.
    sigma
        From `deviation`.

    Returns
    -------
    A number that is at most 1; meaningless where `is_first_order` is false.
    """
    q, dimensions = min(shape), shape[0] if side == "left" else shape[1]
    squares = np.zeros(q)
    squares[: len(s)] = s**2
    kept, lost = squares[:k, None], squares[None, k:]
    turned = ((kept + lost) / (kept - lost) ** 2).sum() + ((dimensions - q) / squares[:k]).sum()
    return 1.0 - sigma**2 * float(turned) / k


def gaussian_change(shape: tuple[int, int], sigma: float, *key: str | int) -> Values:
    """Return a Gaussian matrix that depends only on its arguments."""
    digest = hashlib.blake2b(repr(key).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    generator = np.random.default_rng(int.from_bytes(digest, "little"))
    return sigma * generator.standard_normal(shape)
