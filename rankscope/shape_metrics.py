"""The shape of a spectrum, and what chance alone gives: entropy, energy, tail and outliers.

Functions of singular values as in `rankscope.metrics`: ``s`` is descending, shape ``(k,)``; a zero
matrix has no shape, and the result is NaN. Each number depends on the shape of the matrix, so
compare it with a Gaussian matrix of that shape: what heavy-tail theory calls the ideal exponent, 2,
is what any square Gaussian matrix has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from rankscope.metrics import Values, marchenko_pastur

# Of the Tracy–Widom law of real matrices (β = 1); F. Bornemann, Markov Process. Relat. Fields 16
# (2010), 803.
TRACY_WIDOM_MEAN, TRACY_WIDOM_DEVIATION, TRACY_WIDOM_99 = -1.2065, 1.2680, 2.0234
DRAWN_VALUES, MOST_DRAWS = 1024, 16


class Interval(NamedTuple):
    """A number and the ends of an interval that contains the true one."""

    value: float
    low: float
    high: float


def svd_entropy(s: ArrayLike) -> float:
    """Entropy of the energies, −Σ p ln p/ln k with p = s²/Σs²: in [0, 1].

    1 where all values are equal, 0 where one holds all energy. It uses squares, unlike
    `rankscope.metrics.effective_rank`, so small values hardly count. NaN for a zero matrix and for
    a single value.

    References
    ----------
    O. Alter, P. O. Brown and D. Botstein, "Singular value decomposition for genome-wide expression
    data processing and modeling", PNAS 97 (2000), 10101.
    """
    energy = _energies(s)
    if energy.size == 0 or np.size(s) == 1:
        return math.nan
    positive = energy[energy > 0]
    return float(-(positive * np.log(positive)).sum() / math.log(np.size(s))) + 0.0


def energy_rank(s: ArrayLike, share: float) -> float:
    """How many leading singular values hold a share of Σs²; NaN for a zero matrix.

    Parameters
    ----------
    s
        Singular values, descending, shape ``(k,)``.
    share
        In (0, 1), such as 0.9.
    """
    return energy_ranks(s, (share,))[0]


def energy_ranks(s: ArrayLike, shares: Sequence[float]) -> tuple[float, ...]:
    """`energy_rank` for each of several shares."""
    energy = _energies(s)
    if energy.size == 0:
        return (math.nan,) * len(shares)
    places = np.searchsorted(np.cumsum(energy), shares)
    return tuple(float(min(place + 1, energy.size)) for place in places.tolist())


def tail_index(lower: ArrayLike, s: ArrayLike, upper: ArrayLike, *, noise_floor: float) -> Interval:
    """Exponent of the power law that the upper half of the squared singular values would follow.

    Hill's estimate 1 + k/Σ_{i≤k} ln(λᵢ/λ_{k+1}) with λ = s² and k = ⌊q/2⌋, in the convention of a
    density ∝ λ^−α. It falls with each λᵢ and rises with λ_{k+1}, so that the interval is exact.

    Parameters
    ----------
    lower, s, upper
        Singular values, descending, and their intervals; shape ``(q,)``, all q of the matrix.
    noise_floor
        λ_{k+1} must certainly be above it.

    Returns
    -------
    NaN where it is not, for fewer than two values, and for a zero matrix; infinite for ties.

    References
    ----------
    B. M. Hill, "A simple general approach to inference about the tail of a distribution", Ann.
    Statist. 3 (1975), 1163.
    """
    low, middle, high = (np.asarray(x, dtype=np.float64) for x in (lower, s, upper))
    k = middle.size // 2
    if k == 0 or not low[k] > noise_floor or not low[k] > 0:
        return Interval(math.nan, math.nan, math.nan)
    return Interval(
        _hill(middle[:k], float(middle[k])),
        _hill(high[:k], float(low[k])),
        # The values are descending: those above are never below the threshold.
        _hill(np.maximum(low[:k], high[k]), float(high[k])),
    )


def _hill(above: Values, threshold: float) -> float:
    total = 2 * float(np.log(above / threshold).sum())
    return 1 + above.size / total if total > 0 else math.inf


@lru_cache(maxsize=1024)
def gaussian_tail_index(shape: tuple[int, int]) -> float:
    """`tail_index` of a large Gaussian matrix of this shape: 2.1 square, 3.5 at 1:4.

    A small one has less: 2.08 and 3.40 for q = 96.

    With x the Marchenko–Pastur distributed eigenvalues and m their median,
    1 + 1/(E[ln x | x > m] − ln m). A vector has none.
    """
    if min(shape) == 1:
        return math.nan
    x, weight = _ascending_density(shape)
    median = _quantile(x, weight, 0.5)
    upper = x >= median
    mean = float((weight[upper] * np.log(x[upper])).sum() / weight[upper].sum())
    return 1 + 1 / (mean - math.log(median))


@lru_cache(maxsize=64)
def gaussian_product(shape: tuple[int, int], inner: int) -> tuple[Values, ...]:
    """Singular values of products of two Gaussian factors, (m, r) and (r, n): what chance gives.

    Each is descending, shape ``(inner,)``. There are several for small factors and one for large
    ones, which hardly differ; the same arguments give the same values. The triangular factors of a
    QR decomposition are drawn in place of the factors themselves, from their own law.

    Parameters
    ----------
    shape
        Rows m and columns n of the product.
    inner
        r ≤ min(m, n).

    References
    ----------
    M. S. Bartlett, "On the theory of statistical regression", Proc. R. Soc. Edinburgh 53 (1933),
    260.
    """
    rng = np.random.default_rng((*shape, inner))
    count = min(max(DRAWN_VALUES // inner, 1), MOST_DRAWS)
    return tuple(
        np.linalg.svd(_triangle(rng, shape[0], inner) @ _triangle(rng, shape[1], inner).T)[1]
        for _ in range(count)
    )


def _triangle(rng: np.random.Generator, rows: int, inner: int) -> Values:
    """R of the QR decomposition of a Gaussian (rows, inner) matrix."""
    triangle = np.triu(rng.standard_normal((inner, inner)), 1)
    np.fill_diagonal(triangle, np.sqrt(rng.chisquare(rows - np.arange(inner))))
    return triangle


def outliers(s: ArrayLike, shape: tuple[int, int]) -> float:
    """How many singular values are above what a Gaussian bulk of their median would reach.

    The limit is the Marchenko–Pastur edge plus the spread of the largest value of a finite matrix
    and that of the median, which gives the variance of the bulk. Among purely Gaussian matrices,
    about one in a hundred has an outlier; the edge alone finds some in 16 to 31 of a hundred. In
    square matrices it is two to five for q below 16, six for q = 5 and eight for q = 3.

    Parameters
    ----------
    s
        All q singular values of a matrix, descending.
    shape
        Its shape.

    Returns
    -------
    A count; NaN for a vector, for a zero median, and where the construction caps the rank.

    References
    ----------
    I. M. Johnstone, "On the distribution of the largest eigenvalue in principal components
    analysis", Ann. Statist. 29 (2001), 295, with the centring of Z. Ma, Bernoulli 18 (2012), 322;
    for the median J. Gustavsson, "Gaussian fluctuations of eigenvalues in the GUE", Ann. IHP 41
    (2005), 151, with twice the variance for real matrices.
    """
    s = np.asarray(s, dtype=np.float64)
    if min(shape) == 1 or s.size < min(shape) or not (middle := median(s)) > 0:
        return math.nan
    return float((s > gaussian_edge(shape) * middle).sum())


def median(s: Values) -> float:
    """Median of values that descend; numpy's would sort them, and takes as long as ten metrics."""
    return (float(s[(len(s) - 1) // 2]) + float(s[len(s) // 2])) / 2


@lru_cache(maxsize=1024)
def gaussian_edge(shape: tuple[int, int]) -> float:
    """What s₁ over the median singular value exceeds in 1 % of Gaussian matrices."""
    q, long_side = min(shape), max(shape)
    centre, spread = _largest_eigenvalue(shape)
    x, weight = _ascending_density(shape)
    median = _quantile(x, weight, 0.5)
    # Eigenvalues repel each other, so the median varies by little more than one over q.
    density = (weight / np.gradient(x))[np.searchsorted(x, median)]
    doubt = math.sqrt(math.log(q) + 0.5) / (math.pi * q * density * median)
    deviation = math.hypot(TRACY_WIDOM_DEVIATION * spread, doubt * centre)
    quantile = (TRACY_WIDOM_99 - TRACY_WIDOM_MEAN) / TRACY_WIDOM_DEVIATION
    edge = centre + TRACY_WIDOM_MEAN * spread + quantile * deviation
    return math.sqrt(edge / (median * long_side))


def gaussian_largest_eigenvalue(shape: tuple[int, int]) -> float:
    """Mean of the largest eigenvalue of W·Wᵀ for a Gaussian W of this shape and unit variance."""
    centre, spread = _largest_eigenvalue(shape)
    return centre + TRACY_WIDOM_MEAN * spread


def gaussian_eigenvalues(shape: tuple[int, int]) -> Values:
    """The q eigenvalues that are typical of W·Wᵀ/M for a large Gaussian W, descending.

    They are quantiles of the Marchenko–Pastur distribution, at (i − ½)/q.
    """
    x, weight = _ascending_density(shape)
    q = min(shape)
    shares = (np.arange(q, 0, -1) - 0.5) / q
    return _quantiles(x, weight, shares)


def _largest_eigenvalue(shape: tuple[int, int]) -> tuple[float, float]:
    """Centre and scale of the Tracy–Widom law that the largest eigenvalue of W·Wᵀ follows."""
    roots = [math.sqrt(side - 0.5) for side in shape]
    return sum(roots) ** 2, sum(roots) * (1 / roots[0] + 1 / roots[1]) ** (1 / 3)


def _energies(s: ArrayLike) -> Values:
    """Shares of Σs²; empty for a zero matrix."""
    s = np.asarray(s, dtype=np.float64)
    if s.size == 0 or not s[0] > 0:
        return np.empty(0)
    squares = (s / s[0]) ** 2
    return np.asarray(squares / squares.sum(), np.float64)


def _ascending_density(shape: tuple[int, int]) -> tuple[Values, Values]:
    x, weight = marchenko_pastur(min(shape) / max(shape))
    return x[::-1], weight[::-1]


def _quantile(x: Values, weight: Values, share: float) -> float:
    return float(_quantiles(x, weight, share))


def _quantiles(x: Values, weight: Values, shares: float | Values) -> Values:
    return np.asarray(np.interp(shares, (np.cumsum(weight) - weight / 2) / weight.sum(), x))
