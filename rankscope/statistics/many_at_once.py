"""`centres`: mean or median, ends of the band and what is censored, of many groups at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankscope.metrics import Values

Places = NDArray[np.intp]
Flags = NDArray[np.bool_]

WHOLE, MOST = (0.0, 1.0), (0.1, 0.9)
"""Bands: from the least to the greatest value, and from the 10 % to the 90 % quantile."""


@dataclass(frozen=True)
class Centres:
    """One entry per group, NaN (or False) where it has no value.

    Attributes
    ----------
    centre, low, high
        The middle of the values and both ends of their band.
    unknown
        How many of the values are NaN.
    bound
        Whether ``centre`` is only a lower bound.
    """

    centre: Values
    low: Values
    high: Values
    unknown: NDArray[np.int64]
    bound: Flags


def centres(
    values: Values,
    of: Places,
    count: int,
    *,
    log: bool,
    band: tuple[float, float] = WHOLE,
    censored: Flags | None = None,
) -> Centres:
    """Summarise the values of every group, whatever their order.

    Parameters
    ----------
    values
        The values (n,) of all groups; NaN where unknown.
    of
        The group of each (n,), 0 to ``count`` − 1.
    count
        Number of groups.
    log
        Whether the centre is the median, on the log scale, of positive values; else their mean.
    band
        Quantiles at which the band ends.
    censored
        Which values (n,) are known only from below. They may be anything up to infinity: where
        raising them would move the median, it is known only as a lower bound.
    """
    known = ~np.isnan(values)
    unknown = np.bincount(of[~known], minlength=count)
    ordered = _Ordered.of(values[known], of[known], count)
    low, high = (ordered.quantile(share) for share in band)
    bound = np.zeros(count, np.bool_)
    if not log:
        return Centres(ordered.mean(), low, high, unknown, bound)
    middle = ordered.quantile(0.5)
    if censored is not None and censored.any():
        raised = np.where(censored, np.inf, values)[known]
        bound = _Ordered.of(raised, of[known], count).quantile(0.5) > middle
    return Centres(middle, low, high, unknown, bound)


@dataclass(frozen=True)
class _Ordered:
    """Values sorted within their groups, which lie one after another."""

    values: Values
    sizes: NDArray[np.int64]

    @classmethod
    def of(cls, values: Values, of: Places, count: int) -> _Ordered:
        return cls(values[np.lexsort((values, of))], np.bincount(of, minlength=count))

    def quantile(self, share: float) -> Values:
        """Quantile of every group, interpolated on the log scale; values may be infinite.

        Not of the logarithms: next to an infinite value that is NaN.
        """
        found = np.full(len(self.sizes), np.nan)
        filled = self.sizes > 0
        starts = (np.cumsum(self.sizes) - self.sizes)[filled]
        position = share * (self.sizes[filled] - 1)
        part = position - np.floor(position)
        below = self.values[starts + np.floor(position).astype(int)]
        above = self.values[starts + np.ceil(position).astype(int)]
        differ = below != above
        found[filled] = below
        between = below[differ] ** (1 - part[differ]) * above[differ] ** part[differ]
        found[np.flatnonzero(filled)[differ]] = between
        return found

    def mean(self) -> Values:
        """Mean of every group, within its values to the last bit."""
        found = np.full(len(self.sizes), np.nan)
        filled = self.sizes > 0
        starts = (np.cumsum(self.sizes) - self.sizes)[filled]
        if starts.size:
            means = np.add.reduceat(self.values, starts) / self.sizes[filled]
            ends = starts + self.sizes[filled] - 1
            found[filled] = np.clip(means, self.values[starts], self.values[ends])
        return found
