"""Metrics of a matrix as pure functions of its singular values: an array in, a number out.

Throughout, ``s`` holds the singular values of one m×n matrix: shape ``(k,)``, nonnegative,
descending. ``q = min(m, n)``; ``k < q`` where the construction caps the rank, as in a low-rank
product. A zero matrix has norms of 0 but no rank and no condition number: those are NaN.

numpy alone is used here, since every analysis loads this module.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]
NODES = 20_000  # of the quadrature over the Marchenko–Pastur density


def effective_rank(s: ArrayLike) -> float:
    """Exponential of the Shannon entropy of the singular values, normalised to sum to 1.

    How many dimensions the matrix spreads over: k equal singular values give k. The
    distribution is ``p = s / sum(s)``, not of squares, and the logarithm is natural. Effective rank
    is continuous in the matrix, but steep at 0: a small tail over many dimensions moves it a lot.

    Parameters
    ----------
    s
        Singular values, shape ``(k,)``. Zeros count for nothing (0·ln 0 = 0).

    Returns
    -------
    A number in ``[1, k]``; NaN if every singular value is zero, where it is undefined.

    References
    ----------
    O. Roy and M. Vetterli, "The effective rank: a measure of effective dimensionality",
    EUSIPCO 2007.

    Examples
    --------
    >>> import rankscope as rs
    >>> round(rs.effective_rank([1, 1, 1, 0]), 6)
    3.0
    >>> round(rs.effective_rank([1, 1, 1] + 97 * [0.01]), 1)  # a small tail counts
    12.2
    """
    s = np.asarray(s, dtype=np.float64)
    positive = s[s > 0]
    if positive.size == 0:
        return math.nan
    p = positive / positive.max()  # whose sum is in range whatever the values
    p /= p.sum()
    p = p[p > 0]  # of which the least may have left the range of float64
    return float(np.exp(-(p * np.log(p)).sum()))


def proportional_effective_rank(s: ArrayLike, *, shape: tuple[int, int] | None = None) -> float:
    """Effective rank as a share of the dimensions that the matrix has (PER).

    Parameters
    ----------
    s
        Singular values, shape ``(k,)``.
    shape
        Shape of the matrix, whose smaller side is the denominator; by default the denominator is
        ``k``. A low-rank product of inner dimension r has ``k = r`` values but q dimensions: pass
        the shape to compare it with full-rank matrices, as the published studies do.

    Returns
    -------
    A number in ``(0, 1]``, at most ``k / q``; NaN for a zero matrix.

    References
    ----------
    R. Diehl Martinez et al., "Tending Towards Stability: Convergence Challenges in Small
    Language Models", Findings of EMNLP 2024.

    Examples
    --------
    >>> import rankscope as rs
    >>> s = [2, 2, 2, 2]  # of a product of inner dimension 4
    >>> round(rs.proportional_effective_rank(s), 6)
    1.0
    >>> round(rs.proportional_effective_rank(s, shape=(16, 64)), 6)
    0.25
    """
    s = np.asarray(s, dtype=np.float64)
    return effective_rank(s) / (s.size if shape is None else min(shape))


def effective_rank_error(s: ArrayLike, lower: ArrayLike, upper: ArrayLike) -> float:
    """Rigorous bound on the relative error of `effective_rank`, and therefore of PER.

    If every true singular value lies in its interval, T = Σ max(upper − s, s − lower) / Σs bounds
    the total variation distance between the computed and the true distribution, and the
    entropies differ by at most T ln(k − 1) + h(T), with h the binary entropy.

    Parameters
    ----------
    s, lower, upper
        Computed singular values and the ends of their intervals, each of shape ``(k,)``.

    Returns
    -------
    A bound on ``|computed − true| / true``; NaN for a zero matrix, 0 where k is 1.

    References
    ----------
    K. M. R. Audenaert, "A sharp continuity estimate for the von Neumann entropy", J. Phys. A 40
    (2007), 8127, in the commuting case.
    """
    s, low, high = (np.asarray(x, dtype=np.float64) for x in (s, lower, upper))
    largest = s.max(initial=0.0)
    if largest == 0:
        return math.nan
    if s.size == 1:
        return 0.0
    errors = np.maximum(high - s, s - low) / largest
    distance = min(float(errors.sum() / (s / largest).sum()), 1 - 1 / s.size)
    return math.expm1(distance * math.log(s.size - 1) + _binary_entropy(distance))


def _binary_entropy(x: float) -> float:
    return 0.0 if x in (0.0, 1.0) else -x * math.log(x) - (1 - x) * math.log1p(-x)


@lru_cache(maxsize=1024)
def gaussian_per(shape: tuple[int, int]) -> float:
    """PER of a matrix of this shape with independent Gaussian entries.

    The baseline that makes shapes comparable: 0.805 for a square matrix, 0.926 at 1:2, 0.966 at
    1:4. If x follows the Marchenko–Pastur distribution of the eigenvalues of W·Wᵀ/M and s = √x, the
    limit for large sizes is E[s]·exp(−E[s ln s]/E[s]), integrated here over the angle that makes
    the integrand smooth. For a vector it is exactly 1.

    Parameters
    ----------
    shape
        ``(m, n)``, both at least 1.

    Returns
    -------
    A number in ``(0.8, 1]``. The mean over finite matrices is smaller by at most 0.25/q.

    References
    ----------
    V. Marchenko and L. Pastur, "Distribution of eigenvalues for some sets of random matrices",
    Math. USSR Sb. 1 (1967), 457.

    Examples
    --------
    >>> import rankscope as rs
    >>> [round(rs.gaussian_per(shape), 3) for shape in ((96, 96), (96, 384))]
    [0.805, 0.966]
    """
    if min(shape) == 1:
        return 1.0
    x, density = marchenko_pastur(min(shape) / max(shape))
    s = np.sqrt(x)
    mean = float((density * s).sum())
    return mean * math.exp(-float((density * s * np.log(s)).sum()) / mean)


@lru_cache(maxsize=4)  # three numbers of a shape are integrals over it
def marchenko_pastur(ratio: float) -> tuple[Values, Values]:
    """Eigenvalues x of W·Wᵀ/M in the limit of large Gaussian W, descending, and their weights.

    ``ratio`` is q/M, in (0, 1]. Integrals over the density are sums with these weights. Neither
    array can be written to.
    """
    # Midpoints converge fast, the integrand being smooth and periodic; 1e-8 for a square matrix,
    # whose density is infinite at one end.
    angle = (np.arange(NODES) + 0.5) * (math.pi / NODES)
    x = 1 + ratio + 2 * math.sqrt(ratio) * np.cos(angle)
    weights = np.sin(angle) ** 2 / x * (2 / NODES)
    x.flags.writeable = weights.flags.writeable = False
    return x, weights


def stable_rank(s: ArrayLike) -> float:
    """Squared Frobenius norm over squared spectral norm, Σs²/s[0]²: in [1, k], blind to the tail.

    NaN for a zero matrix.

    References
    ----------
    M. Rudelson and R. Vershynin, "Sampling from large matrices", J. ACM 54 (2007), 21.

    Examples
    --------
    >>> import rankscope as rs
    >>> round(rs.stable_rank([1, 1, 1] + 97 * [0.01]), 2)  # effective_rank gives 12.2
    3.01
    """
    relative = _relative(s)
    return float((relative**2).sum()) if relative.size else math.nan


def participation_ratio(s: ArrayLike) -> float:
    """(Σs²)²/Σs⁴, the number of dimensions that carry the energy: in [1, k].

    It is between the stable rank and the effective rank. NaN for a zero matrix.

    Examples
    --------
    >>> import rankscope as rs
    >>> s = [4, 2, 1]
    >>> [round(rank(s), 2) for rank in (rs.stable_rank, rs.participation_ratio, rs.effective_rank)]
    [1.31, 1.62, 2.6]
    """
    energy = _relative(s) ** 2
    return float(energy.sum() ** 2 / (energy**2).sum()) if energy.size else math.nan


def _relative(s: ArrayLike) -> Values:
    """Singular values over the largest, so that no square over- or underflows."""
    s = np.asarray(s, dtype=np.float64)
    return s / s[0] if s.size and s[0] > 0 else np.empty(0)


def numerical_rank(lower: ArrayLike, noise_floor: float) -> int:
    """How many singular values are certainly above the noise floor.

    Parameters
    ----------
    lower
        Lower ends of the intervals of the singular values, shape ``(k,)``.
    noise_floor
        The largest singular value that rounding alone may produce, in the units of the matrix.
        This is not the usual ``max(m, n)·eps·s[0]``: with bfloat16's eps that gives every matrix of
        128 rows rank 0, and with the eps of the arithmetic it gives every stored one full rank.
    """
    return int((np.asarray(lower, dtype=np.float64) > noise_floor).sum())


def condition_number(s: ArrayLike, *, at: int | None = None) -> float:
    """Largest singular value divided by the last, or by number ``at`` (counted from 1).

    Parameters
    ----------
    s
        Singular values, descending, shape ``(k,)``.
    at
        Which singular value to divide by, such as the rank or ⌈0.9q⌉. Past ``k`` the singular
        values are exactly zero.

    Returns
    -------
    A number ≥ 1; ``inf`` where the divisor is exactly zero; NaN for a zero matrix. The function
    cannot tell whether the divisor is rounding noise: see `spectrum` for the noise floor.

    Examples
    --------
    >>> import rankscope as rs
    >>> s = [8.0, 4.0, 2.0, 1e-9]
    >>> rs.condition_number(s, at=3)
    4.0
    >>> rs.condition_number(s) > 1e9  # of a value that may be noise
    True
    """
    s = np.asarray(s, dtype=np.float64)
    if s.size == 0 or s[0] == 0:
        return math.nan
    index = (s.size if at is None else at) - 1
    if index < 0:
        return math.nan
    divisor = float(s[index]) if index < s.size else 0.0
    return float(s[0]) / divisor if divisor else math.inf


def spectral_norm(s: ArrayLike) -> float:
    """Largest singular value."""
    s = np.asarray(s, dtype=np.float64)
    return float(s[0]) if s.size else 0.0


def frobenius_norm(s: ArrayLike) -> float:
    """√Σs²; ``inf`` where that exceeds float64."""
    relative = _relative(s)
    return spectral_norm(s) * math.sqrt((relative**2).sum()) if relative.size else 0.0


def nuclear_norm(s: ArrayLike) -> float:
    """Σs; ``inf`` where that exceeds float64."""
    with np.errstate(over="ignore"):
        return float(np.asarray(s, dtype=np.float64).sum())


def noise_share(s: ArrayLike, noise_floor: float, rank: int) -> float:
    """How much of Σs could be rounding noise: (k − rank)·noise_floor/Σs, at most 1.

    Parameters
    ----------
    s
        Singular values, shape ``(k,)``.
    noise_floor, rank
        As in `numerical_rank`: each value past the rank may be noise, up to the floor.

    Returns
    -------
    A number in ``[0, 1]``; NaN for a zero matrix.
    """
    s = np.asarray(s, dtype=np.float64)
    largest = s.max(initial=0.0)
    if largest == 0:
        return math.nan
    with np.errstate(over="ignore"):
        return min(float((s.size - rank) * (noise_floor / largest) / (s / largest).sum()), 1.0)


def resolved_effective_rank(s: ArrayLike, lower: ArrayLike, noise_floor: float) -> float:
    """Effective rank of the values that are certainly above the noise floor.

    `effective_rank` counts noise as dimensions; together the two bracket the effective rank that
    the matrix had before it was rounded. This one is exact where the rank is low, and too small
    where a true tail is lost in the noise.

    Parameters
    ----------
    s, lower, noise_floor
        As in `numerical_rank`, which is the number of values that count.

    Returns
    -------
    A number in ``[1, k]``; NaN if no value is above the floor.
    """
    s, lower = (np.asarray(x, dtype=np.float64) for x in (s, lower))
    return effective_rank(s[lower > noise_floor])


def noise_matters(per: ArrayLike, per_resolved: ArrayLike) -> NDArray[np.bool_]:
    """Whether rounding noise may be more than 1 % of an effective rank.

    PER counts noise as dimensions, and `resolved_effective_rank` leaves out all that may be noise:
    the truth is between the two, and where they differ it is not known.

    Parameters
    ----------
    per, per_resolved
        Columns of the metrics table, or single numbers. NaN in ``per_resolved`` means that no value
        is above the noise floor; NaN in ``per`` that there is no rank for noise to be in.
    """
    per, resolved = (np.asarray(x, dtype=np.float64) for x in (per, per_resolved))
    return np.isfinite(per) & ~(resolved >= 0.99 * per)
