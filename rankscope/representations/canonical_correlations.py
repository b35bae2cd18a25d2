"""SVCCA and PWCCA: correlations between directions of two sets of features of the same tokens.

Both work on orthonormal bases of the centred features, (n, k), so that nothing is divided by a
small singular value: directions below the noise are left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from rankscope.metrics import NODES, numerical_rank
from rankscope.shape_metrics import energy_rank
from rankscope.spectra.bounds import Values, Within, svd_bound

SHARE = 0.99  # of the variance, which the directions of SVCCA hold; Raghu et al. 2017
TOKENS_PER_DIRECTION = 4  # fewer, and directions correlate by chance


@dataclass(frozen=True)
class Basis:
    """Singular value decomposition of centred features, of the directions above the noise.

    Attributes
    ----------
    left, values, right
        Shapes (n, k), (k,) and (k, d); values descend. d − k directions were left out.
    """

    left: Values
    values: Values
    right: Values

    @classmethod
    def of(cls, centred: Values, *, noise_floor: float) -> Basis:
        """Directions of features whose singular values are certainly above the floor.

        Raises
        ------
        numpy.linalg.LinAlgError
            If the decomposition did not converge.
        """
        left, values, right = np.linalg.svd(centred, full_matrices=False)
        bound = svd_bound(float(values[0]), long_side=max(centred.shape))
        k = numerical_rank(Within(bound).ends(values)[0], noise_floor)
        return cls(left[:, :k], values[:k], right[:k])

    @property
    def leading(self) -> int:
        """How many directions hold 99 % of the variance; 0 if there is none."""
        return int(energy_rank(self.values, SHARE)) if self.values.size else 0


def svcca(first: Basis, second: Basis) -> float:
    """Mean canonical correlation of the directions that hold 99 % of the variance of each set.

    In [0, 1]; NaN where a set has no direction or there are fewer than four tokens for each. It
    weights a direction of 0.1 % of the variance like one of 50 %.

    References
    ----------
    M. Raghu, J. Gilmer, J. Yosinski and J. Sohl-Dickstein, "SVCCA: singular vector canonical
    correlation analysis for deep learning dynamics and interpretability", NeurIPS 2017.
    """
    if not _enough(len(first.left), first.leading, second.leading):
        return math.nan
    inner = first.left[:, : first.leading].T @ second.left[:, : second.leading]
    return float(np.minimum(np.linalg.svd(inner, compute_uv=False), 1).mean())


def pwcca(first: Basis, second: Basis) -> float:
    """Mean canonical correlation, weighted by how much of one set each direction accounts for.

    The weight of the canonical variate h is Σ|hᵀx| over the d features x, as columns, of the set
    with fewer directions above the noise; of the first if they have as many. In [0, 1]; NaN as in
    `svcca`.

    References
    ----------
    A. S. Morcos, M. Raghu and S. Bengio, "Insights on representational similarity in neural
    networks with canonical correlation", NeurIPS 2018.
    """
    if not _enough(len(first.left), len(first.values), len(second.values)):
        return math.nan
    if len(second.values) < len(first.values):
        first, second = second, first
    turns, correlations, _ = np.linalg.svd(first.left.T @ second.left, full_matrices=False)
    weights = np.abs((turns.T * first.values) @ first.right).sum(axis=1)
    return float(np.average(np.minimum(correlations, 1), weights=weights))


def _enough(tokens: int, first: int, second: int) -> bool:
    return min(first, second) > 0 and tokens >= TOKENS_PER_DIRECTION * max(first, second)


@lru_cache(maxsize=4096)
def chance_correlation(tokens: int, first: int, second: int) -> float:
    """Mean canonical correlation of independent Gaussian features: what few tokens alone give.

    For kept directions k ≤ k′ of n tokens, the squares follow Wachter's distribution between the
    edges (√(c(1 − c′)) ± √(c′(1 − c)))², with c = k/(n − 1) and c′ = k′/(n − 1). It is also that of
    PWCCA, whose weights do not depend on the correlations then. NaN for fewer than four tokens for
    each direction.

    References
    ----------
    K. W. Wachter, "The limiting empirical measure of multiple discriminant ratios", Ann. Statist. 8
    (1980), 937.

    Examples
    --------
    >>> from rankscope.representations.canonical_correlations import chance_correlation
    >>> round(chance_correlation(1024, 128, 128), 2)
    0.3
    """
    if not _enough(tokens, first, second):
        return math.nan
    c, d = first / (tokens - 1), second / (tokens - 1)
    near, far = math.sqrt(c * (1 - d)), math.sqrt(d * (1 - c))
    low, high = (near - far) ** 2, (near + far) ** 2
    angle = (np.arange(NODES) + 0.5) * (math.pi / NODES)
    x = (low + high) / 2 + (high - low) / 2 * np.cos(angle)
    return float(np.average(np.sqrt(x), weights=np.sin(angle) ** 2 / (x * (1 - x))))
