"""What the metrics are for independent Gaussian features, n tokens of d dimensions."""

from __future__ import annotations

from functools import lru_cache

from rankscope.metrics import gaussian_per
from rankscope.representations.power_law import power_law
from rankscope.representations.sensitivities import FeatureMetric
from rankscope.shape_metrics import gaussian_eigenvalues, gaussian_largest_eigenvalue


@lru_cache(maxsize=1024)
def gaussian_features(tokens: int, dimensions: int) -> dict[FeatureMetric, float]:
    """Metrics of an (n, d) matrix of independent Gaussian entries: the most that chance spreads.

    By formulas for large matrices, from the Marchenko–Pastur distribution of eigenvalues: within
    2 % of the mean over simulated matrices for n ≥ 4d and d ≥ 32 (α: within 0.03).

    Parameters
    ----------
    tokens, dimensions
        n and d. For centred features, n is one less than the number of tokens.

    Examples
    --------
    >>> from rankscope.representations.gaussian_features import gaussian_features
    >>> {name: round(value, 2) for name, value in gaussian_features(1024, 256).items()}
    {'rankme': 247.35, 'per': 0.97, 'alpha_req': 0.25, 'stable_rank': 115.21, ...}
    """
    shape = (tokens, dimensions)
    short_side = min(shape)
    per = gaussian_per(shape)
    eigenvalues = gaussian_eigenvalues(shape)
    return {
        "rankme": per * short_side,
        "per": per,
        "alpha_req": power_law(eigenvalues, most=short_side).alpha,
        "stable_rank": tokens * dimensions / gaussian_largest_eigenvalue(shape),
        # The exact ratio of the means of (Σλ)² and Σλ².
        "participation_ratio": (tokens * dimensions + 2) / (tokens + dimensions + 1),
    }
