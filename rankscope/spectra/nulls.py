"""What a Gaussian change of the same norm would do to a matrix: the null for an actual change.

To first order in the change where that holds, otherwise simulated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from rankscope.spectra.bases import Basis, basis_of
from rankscope.spectra.bounds import Values
from rankscope.spectra.chance import (
    Side,
    deviation,
    first_order_least_cosines,
    first_order_overlap,
    gaussian_change,
    is_first_order,
)
from rankscope.spectra.intruders import likely_intruders
from rankscope.spectra.matrices import Dense
from rankscope.spectra.rounding import Rounding

DRAWN_ENTRIES = 2**18  # small matrices are simulated several times, others once
MOST_DRAWS = 4
# Of so many neighbours that stay among themselves, each keeps a cosine above 0.5 with one: the
# largest is at least p/√3, and p at least 0.94 while the change is within `SHARE_OF_GAP`.
MOST_TOGETHER = 3


class Nulls:
    """What a Gaussian change of the same norm would do to a matrix.

    Parameters
    ----------
    before
        The matrix.
    norm
        Frobenius norm of the change.
    ks
        Sizes of the subspaces that will be asked for.
    key
        What the simulation depends on, besides the norm.
    """

    def __init__(
        self, before: Basis, norm: float, ks: Sequence[int], key: tuple[str | int, ...]
    ) -> None:
        self._before, self._key = before, key
        self._sigma = math.ldexp(deviation(norm, before.shape), -before.exponent)
        self._resolved = [k for k in ks if before.is_resolved(k)]
        self._near = [k for k in self._resolved if self._is_near(k)]

    def overlap(self, side: Side, k: int) -> float | None:
        """Overlap of the leading k-subspaces before and after such a change."""
        if k in self._near:
            return first_order_overlap(
                self._before.values, k, self._before.shape, side, self._sigma
            )
        return self._simulated_mean(side, k, lambda cross: float((cross**2).sum() / k))

    def least_cosine(self, side: Side, k: int) -> float | None:
        """Smallest principal cosine of these subspaces."""
        if k in self._near:
            return self._least_cosines[side, k]
        return self._simulated_mean(
            side, k, lambda cross: float(np.linalg.svd(cross, compute_uv=False)[-1])
        )

    def intruders(self, count: int) -> float | None:
        """How many intruders there would be among the leading vectors."""
        within = range(1, min(count, self._before.count) + 1)
        ends = [0, *filter(self._is_near, within)]
        if ends[-1] == within[-1] and max(np.diff(ends)) <= MOST_TOGETHER:
            return 0.0
        found = [likely_intruders(drawn, self._before) for drawn in self._simulated]
        return _mean([one for one in found if one is not None])

    def _is_near(self, k: int) -> bool:
        return is_first_order(self._sigma, self._before.shape, self._before.gap(k))

    @cached_property
    def _least_cosines(self) -> dict[tuple[Side, int], float]:
        before = self._before
        return first_order_least_cosines(
            before.values, self._near, before.shape, self._sigma, *self._key
        )

    def _simulated_mean(
        self, side: Side, k: int, measure: Callable[[Values], float]
    ) -> float | None:
        if k not in self._resolved:
            return None
        crosses = [cosines_between(drawn, self._before, side) for drawn in self._simulated]
        return _mean([measure(cross[:k, :k]) for cross in crosses])

    @cached_property
    def _simulated(self) -> list[Basis]:
        """Bases of the matrix plus random changes; drawn once, and only if needed."""
        before, shape = self._before, self._before.shape
        draws = min(max(DRAWN_ENTRIES // (shape[0] * shape[1]), 1), MOST_DRAWS)
        found = []
        for draw in range(draws):
            values = before.matrix + gaussian_change(shape, self._sigma, *self._key, draw)
            drawn = basis_of(Dense(values, "float64", Rounding.by_norm(0.0, 53)), before.count)
            if drawn is not None:
                found.append(drawn)
        return found


def cosines_between(now: Basis, before: Basis, side: Side) -> Values:
    """Cosines between the leading vectors of a side, (K, K′)."""
    pair = (now.left, before.left) if side == "left" else (now.right, before.right)
    return np.asarray(pair[0].T @ pair[1], np.float64)


def _mean(drawn: list[float]) -> float | None:
    """Mean of what was drawn; None if no drawn matrix could be decomposed."""
    return sum(drawn) / len(drawn) if drawn else None
