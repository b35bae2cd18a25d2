"""What chance alone would do to singular subspaces: the null to compare every overlap with.

A change without content, Gaussian and of the same norm, also turns subspaces; and two unrelated
subspaces still overlap. Legend as in `rankscope.spectra.bases`; σ is the standard deviation of an
entry of the change, D.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rankscope.spectra.bounds import Values

Side = Literal["left", "right"]
SIDES: tuple[Side, ...] = get_args(Side)
SHARE_OF_GAP = 0.25  # up to here the first order is within a few hundredths of a simulation
DRAWS = 4  # of the turns of first order
# √(πe/2)·erfc(1/√2): √k times the expected smallest singular value of a large Gaussian k×k matrix
# of unit variance. A. Edelman, SIAM J. Matrix Anal. Appl. 9 (1988), 543.
SMALLEST = 0.6556795424187985


def random_overlap(k: int, dimensions: int) -> float:
    """Expected ‖UᵀU′‖²_F/k of two independent random k-dimensional subspaces: k over dimensions."""
    return k / dimensions


def random_share_deviation(k: int, shares: Values) -> float:
    """Standard deviation of the share of Σλ that a random k-dimensional subspace holds; mean k/d.

    Of tr(PC)/tr(C), P a projection that is turned at random and C of eigenvalues λ: the variance is
    2k(d − k)(d·Σp² − 1)/(d²(d − 1)(d + 2)), p = λ/Σλ.

    Parameters
    ----------
    k
        From 0 to d.
    shares
        p, (d,), which add up to 1. Where C projects on q dimensions, each is 1/q or 0.
    """
    d = len(shares)
    if d < 2:
        return 0.0
    uneven = max(d * float(shares @ shares) - 1, 0.0)
    return math.sqrt(2 * k * (d - k) * uneven / (d**2 * (d - 1) * (d + 2)))


def random_least_cosine(k: int, dimensions: int) -> float:
    """Expected smallest principal cosine of two independent random k-dimensional subspaces.

    It is that of the k×k corner of a random rotation: for large k and d − k that of a Gaussian
    matrix of variance 1/(d − k). The other terms are fitted to the exact expectation, from which
    this differs by at most 0.6 %. It is exact where k or d − k is 1, and 1 where k is d. The
    exact law is in P.-A. Absil, A. Edelman and P. Koev, "On the largest principal angle between
    random subspaces", Linear Algebra Appl. 414 (2006), 288.
    """
    rest = dimensions - k
    if not rest:
        return 1.0
    if min(k, rest) == 1:  # of two random lines, or of the normals of two hyperplanes
        ratio = math.lgamma(dimensions / 2) - math.lgamma((dimensions + 1) / 2)
        return math.exp(ratio) / math.sqrt(math.pi)
    return SMALLEST * (1 + 1 / (4 * k) + 1 / (4 * rest)) / math.sqrt(k * rest + 1)


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


def first_order_least_cosines(
    s: Values, ks: Sequence[int], shape: tuple[int, int], sigma: float, *key: str | int
) -> dict[tuple[Side, int], float]:
    """Expected smallest principal cosine of the leading k-subspaces of A and A + D, to first order.

    The turns of u_i towards u_j (`first_order_overlap`) are independent for i ≤ k < j. With X the
    matrix of them, the subspaces have the principal tangents σ(X), so that the smallest cosine is
    1/√(1 + ‖X‖²). A spectral norm has no formula: it is drawn a few times, which takes only the
    leading rows and columns of UᵀDV.

    Parameters
    ----------
    s, shape, sigma
        As for `first_order_overlap`.
    ks
        Sizes of the subspaces, less than q and with s_k > s_{k+1}.
    key
        What the draws depend on.

    Returns
    -------
    One number for each side and size.
    """
    if not ks:
        return {}
    q, most = min(shape), max(ks)
    values = np.zeros(q + most)
    values[: len(s)] = s
    generator = _generator(*key)
    columns, rows = (_leading(generator, dimensions, q, most) for dimensions in shape)
    found: dict[tuple[Side, int], float] = {}
    for side in SIDES:
        own, other = (columns, rows) if side == "left" else (rows, columns)
        for k in ks:
            kept, lost = values[:k], values[k : own.shape[1], None]  # what is beyond q is zero
            per_unit = sigma / (kept**2 - lost**2)
            turns = own[:, k:, :k] * (kept * per_unit).astype(np.float32)
            mixed = (lost * per_unit)[: q - k].astype(np.float32)  # nothing mixes beyond q
            turns[:, : q - k] += other[:, k:q, :k] * mixed
            squares = np.linalg.eigvalsh(turns.transpose(0, 2, 1) @ turns)[:, -1]
            found[side, k] = float((1 / np.sqrt(1 + squares.astype(np.float64))).mean())
    return found


def _leading(
    generator: np.random.Generator, dimensions: int, q: int, most: int
) -> NDArray[np.float32]:
    """Leading columns of Gaussian matrices with this many rows, those beyond q condensed.

    Of the rows beyond q only the Gram matrix matters: that of a triangle of as many rows as columns
    (Bartlett). In float32: three digits of what chance gives are enough.
    """
    beyond = dimensions - q
    rows = min(beyond, most)
    drawn = generator.standard_normal((DRAWS, q + rows, most), dtype=np.float32)
    drawn[:, q:] *= np.triu(np.ones((rows, most), np.float32))
    index = np.arange(rows)
    drawn[:, q + index, index] = np.sqrt(generator.chisquare(beyond - index, (DRAWS, rows)))
    return drawn


def gaussian_change(shape: tuple[int, int], sigma: float, *key: str | int) -> Values:
    """Return a Gaussian matrix that depends only on its arguments."""
    return sigma * _generator(*key).standard_normal(shape)


def _generator(*key: str | int) -> np.random.Generator:
    digest = hashlib.blake2b(repr(key).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))
