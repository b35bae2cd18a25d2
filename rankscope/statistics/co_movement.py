"""Whether two series of one training run move together beyond the trends that all runs have.

Shapes: n points; x, y are series (n,).
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np

from rankscope.metrics import Values
from rankscope.statistics.intervals import CONFIDENCE, NO_INTERVAL

Method = Literal["spearman", "pearson"]
METHODS: tuple[Method, ...] = get_args(Method)

DEGREE = 3
"""Degree of the polynomial in time that is subtracted from differences."""
FEWEST = {"levels": 4, "differences": 2 * (DEGREE + 1)}
"""Fewest points for a correlation to say anything; a cubic fits four points exactly."""
FEWEST_FOR_INTERVAL = 16
STILL = 1e-12
"""A series that varies by less than this share of its size shows only rounding."""
SMOOTH = 1.5
"""A lag-one correlation above this many of white noise's standard deviations is a trend."""
RANK_VARIANCE = 1.06
"""Variance of Fisher's z for Spearman's correlation over that for Pearson's (Fieller 1957)."""


def later_changes(levels: Values) -> Values:
    """Changes from step to step, without the early ones and without their slow trend.

    In nearly every run, almost everything changes fast at first and slowly later, so the plain
    differences of two unrelated series correlate, in half of all pairs "significantly". So the
    first third of the differences is dropped, and a cubic in time is fitted to the rest and
    subtracted.

    Parameters
    ----------
    levels
        The series (n,), in the order of the steps.

    Returns
    -------
    Array (n − 1 − ⌊(n − 1)/3⌋,); zeros where only rounding is left.
    """
    changes = np.diff(levels)
    kept = changes[len(changes) // 3 :]
    if len(kept) <= DEGREE + 1:
        return np.zeros_like(kept)
    powers = np.polynomial.legendre.legvander(np.linspace(-1, 1, len(kept)), DEGREE)
    basis = np.linalg.qr(powers).Q
    rest: Values = kept - basis @ (basis.T @ kept)
    return rest if np.abs(rest).max() > STILL * np.abs(levels).max() else np.zeros_like(rest)


def correlation_of(x: Values, y: Values, method: Method) -> float:
    """Correlation of two series; NaN where either does not vary."""
    from scipy import stats

    if any(np.ptp(series) <= STILL * np.abs(series).max(initial=0.0) for series in (x, y)):
        return math.nan
    test = stats.spearmanr(x, y) if method == "spearman" else stats.pearsonr(x, y)
    return float(np.clip(test.statistic, -1.0, 1.0))


def interval_of(x: Values, y: Values, method: Method) -> tuple[float, float]:
    """95 % interval of the correlation of two series of changes.

    Fisher's z with the number of points that independent series would need for the same variance
    (Bartlett 1946): n/(1 + 2·ρx·ρy), where ρx and ρy are the series' autocorrelations at lag one.
    Independent levels have differences with ρ = −1/2, for which two thirds of n count.

    Returns
    -------
    Lower and upper end; NaN twice for fewer than 16 points, where either series does not vary, or
    where both are still smooth: a trend is then left, which no number of points distinguishes from
    a relation.

    References
    ----------
    M. S. Bartlett, *On the theoretical specification and sampling properties of autocorrelated
    time-series*, Supplement to the JRSS 8, 1946.
    E. C. Fieller, H. O. Hartley and E. S. Pearson, *Tests for rank correlation coefficients*,
    Biometrika 44, 1957.
    """
    from scipy import stats

    n, value = len(x), correlation_of(x, y, method)
    if n < FEWEST_FOR_INTERVAL or math.isnan(value):
        return NO_INTERVAL
    if method == "spearman":
        x, y = stats.rankdata(x), stats.rankdata(y)
    lags = _lag_one(x), _lag_one(y)
    if min(lags) > SMOOTH / math.sqrt(n):
        return NO_INTERVAL
    effective = (n - (DEGREE - 1) / 2) / (1 + 2 * max(lags[0] * lags[1], 0.0))
    variance = (RANK_VARIANCE if method == "spearman" else 1.0) / max(effective - 3, 1.0)
    if abs(value) == 1.0:
        return value, value
    half = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * math.sqrt(variance)
    return math.tanh(math.atanh(value) - half), math.tanh(math.atanh(value) + half)


def _lag_one(x: Values) -> float:
    """Correlation of a series with itself one step later."""
    centred = x - x.mean()
    return float(centred[1:] @ centred[:-1] / (centred @ centred))
