"""α-ReQ: how fast the variance of features decays from one direction to the next."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from rankscope.spectra.bounds import Values

# The range that the authors' code fits for language models, counted from 1; it leaves out the head
# of the spectrum, which follows no power law, and the tail, where the tokens end it.
FIRST, LAST = 12, 100
LEAST = 10  # values in a fit


class PowerLaw(NamedTuple):
    """A fit of ln λᵢ = c − α·ln i.

    Attributes
    ----------
    alpha
        The exponent; NaN where fewer than `LEAST` values are in the range.
    error
        Standard error of the slope if the residuals were independent. They are not, since
        neighbouring eigenvalues depend on each other: it says how straight the line is, and is no
        interval.
    r2
        Weighted coefficient of determination.
    first, last
        The range of i, counted from 1, both ends included.
    """

    alpha: float
    error: float
    r2: float
    first: int
    last: int


def power_law(eigenvalues: Values, *, most: int) -> PowerLaw:
    """Exponent of the eigenvalues' decay, by least squares with weights 1/i.

    Parameters
    ----------
    eigenvalues
        Of the second moment of features, descending, (d,).
    most
        How many of them are certainly above the noise: none after these is used.

    References
    ----------
    K. K. Agrawal, A. K. Mondal, A. Ghosh and B. A. Richards, "α-ReQ: assessing representation
    quality in self-supervised learning by measuring eigenspectrum decay", NeurIPS 2022. The weights
    are those of C. Stringer et al., "High-dimensional geometry of population responses in visual
    cortex", Nature 571 (2019), 361: they give each octave of i about the same weight.

    Examples
    --------
    >>> import numpy as np
    >>> from rankscope.representations.power_law import power_law
    >>> fit = power_law(np.arange(1, 65) ** -1.5, most=64)
    >>> round(fit.alpha, 6), fit.first, fit.last
    (1.5, 12, 64)
    """
    last = min(LAST, most, len(eigenvalues))
    if last - FIRST + 1 < LEAST:
        return PowerLaw(math.nan, math.nan, math.nan, FIRST, last)
    y = np.log(eigenvalues[FIRST - 1 : last])
    slopes = slope_weights(FIRST, last)
    alpha = -float(slopes @ y)
    weights = 1 / np.arange(FIRST, last + 1)
    x = np.log(np.arange(FIRST, last + 1))
    mean_x, mean_y = np.average(x, weights=weights), np.average(y, weights=weights)
    residuals = y - mean_y + alpha * (x - mean_x)
    variance = float((weights * residuals**2).sum()) / (len(y) - 2)
    # Flat values have no variance to explain.
    total = float((weights * (y - mean_y) ** 2).sum())
    explained = 1 - variance * (len(y) - 2) / total if total > 0 else math.nan
    error = math.sqrt(variance / float((weights * (x - mean_x) ** 2).sum()))
    return PowerLaw(alpha, error, explained, FIRST, last)


def slope_weights(first: int, last: int) -> Values:
    """What each ln λᵢ contributes to the slope of the fit, for i from first to last."""
    i = np.arange(first, last + 1)
    x = np.log(i)
    away = (x - np.average(x, weights=1 / i)) / i
    return np.asarray(away / (away @ x), np.float64)
