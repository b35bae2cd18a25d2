"""Intervals by leaving out one block of documents at a time.

Tokens of one document depend on each other, so documents are sampled and not tokens.
"""

from __future__ import annotations

import math

import numpy as np

from rankscope.spectra.bounds import Values
from rankscope.statistics.intervals import CONFIDENCE, NO_INTERVAL


def jackknife_interval(value: float, without: Values, sizes: Values) -> tuple[float, float]:
    """95 % interval of an estimate from what it is without each of g blocks, by Student's t.

    Parameters
    ----------
    value
        The estimate from all blocks.
    without
        The estimates without one block each, (g,).
    sizes
        Tokens in each block, (g,), positive: blocks need not be of one size.

    Returns
    -------
    Lower and upper end; NaN twice for fewer than two blocks, or where an estimate is not finite.

    References
    ----------
    F. M. T. A. Busing, E. Meijer and R. van der Leeden, "Delete-m jackknife for unequal m",
    Statistics and Computing 9 (1999), 3.

    Examples
    --------
    For a mean, it is Student's interval of the means of the blocks:

    >>> import numpy as np
    >>> from rankscope.representations.jackknife import jackknife_interval
    >>> low, high = jackknife_interval(2.0, np.array([2.5, 2.0, 1.5]), np.ones(3))
    >>> round(low, 2), round(high, 2)
    (-0.48, 4.48)
    """
    from scipy.special import stdtrit

    g = len(without)
    if g < 2 or not np.isfinite(without).all() or not math.isfinite(value):
        return NO_INTERVAL
    times = sizes.sum() / sizes  # h of the article
    pseudo = times * value - (times - 1) * without
    spread = pseudo - float((pseudo / times).sum())
    error = math.sqrt(float((spread**2 / (times - 1)).mean()))
    half = float(stdtrit(g - 1, (1 + CONFIDENCE) / 2)) * error
    return value - half, value + half
