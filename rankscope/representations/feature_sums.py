"""Sums over the features of one block of documents: all that the metrics of a layer need of them.

Features are the vectors x that one layer outputs, one for each token. Blocks are merged by the
update of T. F. Chan, G. H. Golub and R. J. LeVeque, "Algorithms for computing the sample variance",
Amer. Statist. 37 (1983), 242, in which the mean is never subtracted from a sum of squares: where
the mean is a million times the spread, as in dimensions with massive activations, nothing cancels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankscope.errors import WrongSettingError
from rankscope.spectra.bounds import UNIT_ROUNDOFF, Values

BLOCKS = 16  # of documents, whose spread gives the intervals


@dataclass(frozen=True)
class FeatureSums:
    """Sums over the features of some tokens; ``a + b`` are those of the tokens of both.

    Attributes
    ----------
    count
        Tokens that were summed, each with weight 1.
    nonfinite
        Tokens left out because their features hold NaN or Inf.
    mean, scatter
        Mean of x, (d,), and Σ(x − mean)(x − mean)ᵀ, (d, d).
    directions, nonzero
        Σx/‖x‖, (d,), over the ``nonzero`` tokens whose x is not zero.
    norms, longest
        Σ‖x‖ and the largest ‖x‖.

    Examples
    --------
    >>> import numpy as np
    >>> from rankscope.representations.feature_sums import FeatureSums
    >>> sums = FeatureSums.of(np.array([[1.0, 0], [3, 0]])) + FeatureSums.of(np.array([[2.0, 3]]))
    >>> sums.count, sums.mean.tolist(), sums.scatter.tolist()
    (3, [2.0, 1.0], [[2.0, 0.0], [0.0, 6.0]])
    """

    count: int
    nonfinite: int
    mean: Values
    scatter: Values
    directions: Values
    nonzero: int
    norms: float
    longest: float

    @classmethod
    def empty(cls, dimensions: int) -> FeatureSums:
        """Sums over no token."""
        return cls.of(np.empty((0, dimensions)))

    @classmethod
    @np.errstate(over="ignore", invalid="ignore")  # the caller sees that sums are not finite
    def of(cls, features: NDArray[Any]) -> FeatureSums:
        """Sums in float64 over features of any real type, shape (n, d), one row per token."""
        if features.ndim != 2:
            raise WrongSettingError(
                f"features have shape {features.shape}; expected one row per token, (n, d)"
            )
        finite = np.isfinite(features).all(axis=1)
        x = np.asarray(features if finite.all() else features[finite], np.float64)
        count = len(x)
        norms = np.sqrt(np.einsum("ij,ij->i", x, x))
        nonzero = norms > 0
        directions = (1 / norms[nonzero]) @ x[nonzero]
        mean = x.mean(axis=0) if count else np.zeros(x.shape[1])
        centred = x - mean
        return cls(
            count=count,
            nonfinite=len(features) - count,
            mean=mean,
            scatter=centred.T @ centred,
            directions=directions,
            nonzero=int(nonzero.sum()),
            norms=float(norms.sum()),
            longest=float(norms.max(initial=0.0)),
        )

    @np.errstate(over="ignore", invalid="ignore")
    def __add__(self, other: FeatureSums) -> FeatureSums:
        count = self.count + other.count
        share = other.count / count if count else 0.0
        step = other.mean - self.mean
        between = np.outer(step * (self.count * share), step)
        return FeatureSums(
            count=count,
            nonfinite=self.nonfinite + other.nonfinite,
            mean=self.mean + step * share,
            scatter=self.scatter + other.scatter + between,
            directions=self.directions + other.directions,
            nonzero=self.nonzero + other.nonzero,
            norms=self.norms + other.norms,
            longest=max(self.longest, other.longest),
        )

    @property
    def dimensions(self) -> int:
        """The d of the features."""
        return len(self.mean)

    @property
    def nbytes(self) -> int:
        """Memory that the sums take, 8·d² bytes and a little."""
        return self.scatter.nbytes + self.mean.nbytes + self.directions.nbytes

    def about(self, point: Values | float) -> Values:
        """Second moment Σ(x − point)(x − point)ᵀ, (d, d); of x itself about 0."""
        away = self.mean - point
        return self.scatter + np.outer(away * self.count, away)

    @property
    def energy(self) -> float:
        """Σ‖x‖²."""
        return float(np.trace(self.scatter)) + self.count * float(self.mean @ self.mean)

    def error(self, *, centred: bool) -> float:
        """Bound on the error of the sums of squares, ‖computed − true‖_F.

        Of the scatter, or, if not ``centred``, of the second moment of x. It holds for any order of
        summation, and for blocks merged one by one or in a tree of up to eight levels.
        """
        n, u = self.count, UNIT_ROUNDOFF
        spread, energy = float(np.trace(self.scatter)), self.energy
        # Products; the mean, off by n·u·√(energy/n), times the spread; the square of the former.
        error = (n + 8) * spread + 4 * n * math.sqrt(spread * energy) + n * n * u * energy
        return u * (error if centred else error + (2 * n + 8) * energy)


def merged(blocks: Sequence[FeatureSums]) -> FeatureSums:
    """Sums over all blocks, of which there is at least one."""
    if len({block.dimensions for block in blocks}) != 1:
        sizes = sorted({block.dimensions for block in blocks})
        raise WrongSettingError(f"blocks of features of {sizes} dimensions; expected one width")
    return reduce(add, blocks)
