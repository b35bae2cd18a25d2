"""When a series leaves the band where it began, for good, and when it is where it ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankscope.metrics import Values

LEAST_DIFFERENCES = 12  # second differences of all series together, to know the fluctuation from
MOVES = 10.0  # fluctuations: fluctuations alone, even with heavy tails, hardly reach so far
BAND = 3.0  # fluctuations that a band is wide to each side, and at least
SHARE = 0.1  # of the move
TO_DEVIATION = 1 / (0.6745 * math.sqrt(6))  # median second difference → standard deviation


@dataclass(frozen=True)
class Move:
    """A lasting move of a series, by indices.

    The bands around its first and its last value reach a tenth of the distance between the two to
    each side, or three times the fluctuation if that is more.

    Attributes
    ----------
    leaves
        The first value from which on all are outside the band around the first.
    arrives
        The first value from which on all are inside the band around the last.
    """

    leaves: int
    arrives: int


def lasting_moves(family: Sequence[Values], *, least: Sequence[float]) -> list[Move | None]:
    """Return the lasting move of each series; None where it shows none.

    A series has moved if its last two values are further from its first than ten times its
    fluctuation and than ``least``. The *fluctuation* is the standard deviation from step to step,
    from the median of the absolute second differences: steady trends do not count, nor do moves in
    fewer than half of the steps. It is that of the series or of the whole family, whichever is
    larger.

    Of simulated families of 1 to 168 series of 5 to 41 values that only fluctuate, fewer than 1 in
    500 show a move if the fluctuations are normal, also if they are correlated by 0.5 from step to
    step. With the heavy tails of Student's t with 3 degrees of freedom, 1 in 40 of the families of
    28 and 1 in 9 of those of 168 do. Slow wandering, as of a random walk, is a move. A series that
    leaves its band and returns has no lasting move.

    Parameters
    ----------
    family
        The values of each series, in order; finite. Too few values to know the fluctuation from,
        fewer than 12 second differences in all series together, show no move.
    least
        How far each series must move at least, such as the error of its values.

    Examples
    --------
    >>> import numpy as np
    >>> falls = np.array([0.806, 0.804, 0.548, 0.301, 0.300, 0.302, 0.301, 0.303])
    >>> stays = np.array([0.806, 0.804, 0.809, 0.801, 0.805, 0.807, 0.806, 0.804])
    >>> fall, none = lasting_moves([falls, stays], least=[0.01, 0.01])
    >>> fall.leaves, fall.arrives, none
    (2, 3, None)
    """
    differences = [np.abs(np.diff(values, n=2)) for values in family]
    pooled = np.concatenate(differences) if differences else np.array([])
    if pooled.size < LEAST_DIFFERENCES:
        return [None] * len(family)
    common = _median(pooled)
    return [
        _move(values, TO_DEVIATION * max(common, _median(own)), size) if own.size else None
        for values, own, size in zip(family, differences, least, strict=True)
    ]


def _median(values: Values) -> float:
    """As numpy's, which loads masked arrays: that takes longer than a whole summary."""
    ordered, n = np.sort(values), len(values)
    return float((ordered[(n - 1) // 2] + ordered[n // 2]) / 2)


def _move(values: Values, fluctuation: float, least: float) -> Move | None:
    first, last = float(values[0]), float(values[-1])
    moved = np.sign(last - first) * (values - first)
    if moved[-2:].min() <= max(MOVES * fluctuation, least):
        return None
    band = max(SHARE * abs(last - first), BAND * fluctuation)
    return Move(_since(moved > band), _since(np.abs(values - last) <= band))


def _since(holds: NDArray[np.bool_]) -> int:
    """The first index from which on a condition always holds; it holds at the last."""
    never = np.flatnonzero(~holds)
    return int(never[-1]) + 1 if never.size else 0
