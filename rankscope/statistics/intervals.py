"""`Measure`, a number with its 95 % confidence interval, and formulas for such intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95
NO_INTERVAL = (math.nan, math.nan)
_Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


@dataclass(frozen=True)
class Measure:
    """One number measured on a group of texts or sentence pairs.

    Attributes
    ----------
    group
        ``all``, or a kind and a name, such as ``uid:adjunct_island`` or ``source:c4_en``.
    metric
        What the number is.
    value, ci_low, ci_high
        The number and its 95 % confidence interval, NaN where there is none.
    n
        Sample size: the number of documents or sentence pairs.
    """

    group: str
    metric: str
    value: float
    ci_low: float
    ci_high: float
    n: int


def proportion_interval(proportion: float, n: float) -> tuple[float, float]:
    """Interval of a proportion of ``n`` > 0 independent trials, after Wilson.

    Unlike the normal approximation, it stays within [0, 1] and is not empty if all trials agree.
    NaN twice for a NaN proportion. Not scipy's, which counts whole successes: an effective number
    of trials is a fraction.

    References
    ----------
    E. B. Wilson, *Probable inference, the law of succession, and statistical inference*, JASA 22,
    1927.
    """
    if math.isnan(proportion):
        return NO_INTERVAL
    z2 = _Z**2
    centre = (proportion + z2 / (2 * n)) / (1 + z2 / n)
    half = _Z / (1 + z2 / n) * math.sqrt(proportion * (1 - proportion) / n + z2 / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def ratio_interval(
    numerators: NDArray[np.float64], denominators: NDArray[np.float64]
) -> tuple[float, float]:
    """Interval of Σ numerators / Σ denominators, which were sampled in pairs.

    The loss per token of a text set is such a ratio: documents are sampled, not tokens, and tokens
    of one document are correlated. The residuals of the ratio estimate its variance, and Student's
    t with n − 1 degrees of freedom gives the factor.

    Returns
    -------
    Lower and upper end; NaN twice for fewer than two pairs, or where a numerator is not finite.

    References
    ----------
    W. G. Cochran, *Sampling Techniques*, 3rd ed. 1977, section 6.4.
    """
    from scipy.special import stdtrit

    n, total = len(numerators), float(denominators.sum())
    if n < 2 or not total or not np.isfinite(numerators).all():
        return NO_INTERVAL
    ratio = float(numerators.sum()) / total
    residuals = numerators - ratio * denominators
    error = math.sqrt(n / (n - 1) * float(residuals @ residuals)) / total
    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * error
    return ratio - half, ratio + half


def mean_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Interval of the mean of independent values, by Student's t; NaN twice for fewer than two."""
    return ratio_interval(values, np.ones(len(values)))


def mean_of_means_interval(
    intervals: Sequence[tuple[float, float]], mean: float
) -> tuple[float, float]:
    """Interval of the mean of independent quantities, from the interval of each.

    Half widths add in quadrature. NaN twice if a quantity has no interval, or there is none.
    """
    if not intervals:
        return NO_INTERVAL
    halves = [(high - low) / 2 for low, high in intervals]
    half = math.sqrt(sum(h * h for h in halves)) / len(halves)
    return (mean - half, mean + half) if math.isfinite(half) else NO_INTERVAL
