"""Correlations of two series, with intervals from resampled blocks of successive points.

A resample is how often it draws each point, so that weighted sums do for all resamples at once.

Shapes: n points, r resamples; x, y are series (n,), w is counts (r, n).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from rankscope.scoring.intervals import CONFIDENCE

Values = NDArray[np.float64]

STILL = 1e-20
"""A resample whose variance is less than this share of the whole series' has none."""


def block_length(n: int) -> int:
    """Successive points that are drawn together: about ∛n, the growth that Künsch proves best."""
    return max(1, round(math.cbrt(n)))


def block_counts(n: int, *, resamples: int, seed: int) -> Values:
    """How often each resample draws each of n points, by the moving-block bootstrap.

    A resample is ⌈n/b⌉ blocks of b = `block_length` successive points, each begun at any of the
    n − b + 1 places with equal probability, and cut to n points.

    Returns
    -------
    (resamples, n); every row adds up to n. The same for the same arguments.

    References
    ----------
    H. R. Künsch, *The jackknife and the bootstrap for general stationary observations*, Annals of
    Statistics 17, 1989.
    """
    block = block_length(n)
    shape = (resamples, math.ceil(n / block), 1)
    starts = np.random.default_rng(seed).integers(0, n - block + 1, shape)
    points = (starts + np.arange(block)).reshape(resamples, -1)[:, :n]
    places = points + n * np.arange(resamples)[:, None]
    counts = np.bincount(places.ravel(), minlength=resamples * n)
    return counts.reshape(resamples, n).astype(np.float64)


def pearson(x: Values, y: Values, w: Values) -> Values:
    """Pearson's correlation of x and y in every resample; NaN where either does not vary.

    Parameters
    ----------
    x, y
        Finite, of shape ``(n,)`` or, where they differ by resample, ``(r, n)``.
    w
        How often each point is drawn, ``(r, n)``.
    """
    x, y = _standardised(x, w), _standardised(y, w)
    found: Values = np.clip((w * x * y).sum(axis=1) / w.sum(axis=1), -1.0, 1.0)
    return found


def spearman(x: Values, y: Values, w: Values) -> Values:
    """Spearman's correlation: Pearson's of the ranks that the points have in each resample.

    Points drawn more than once are ties like any others: they share the mean of their ranks.
    """
    return pearson(_ranks(x, w), _ranks(y, w), w)


METHODS: Mapping[str, Callable[[Values, Values, Values], Values]] = {
    "spearman": spearman,
    "pearson": pearson,
}


def percentile_interval(estimates: Values) -> tuple[float, float]:
    """The middle 95 % of the resamples' estimates, without those that have none."""
    known = estimates[~np.isnan(estimates)]
    if not known.size:
        return math.nan, math.nan
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)


def _standardised(x: Values, w: Values) -> Values:
    """Shift and scale to mean 0 and variance 1 in every resample; NaN where x does not vary."""
    total = w.sum(axis=1, keepdims=True)
    centred = x - (w * x).sum(axis=1, keepdims=True) / total
    variance = (w * centred**2).sum(axis=1, keepdims=True) / total
    # Of equal values the mean may be one rounding off, which is no variation.
    still = variance <= STILL * np.var(x, axis=-1, keepdims=True)
    scaled: Values = centred / np.sqrt(np.where(still, np.nan, variance))
    return scaled


def _ranks(x: Values, w: Values) -> Values:
    """Ranks from 1 that the points have in every resample, the mean of them among equals."""
    order = np.argsort(x, kind="stable")
    is_new = np.diff(x[order], prepend=np.nan) != 0
    drawn = np.add.reduceat(w[:, order], np.flatnonzero(is_new), axis=1)
    ranks = np.cumsum(drawn, axis=1) - (drawn - 1) / 2
    value_of = np.empty(len(x), dtype=np.intp)
    value_of[order] = np.cumsum(is_new) - 1
    found: Values = ranks[:, value_of]
    return found
