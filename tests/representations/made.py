"""Features with a spectrum that was prescribed."""

import numpy as np
from numpy.typing import NDArray

from rankscope.representations.feature_sums import FeatureSums

Features = NDArray[np.float64]


def made(
    s: Features, n: int, *, mean: float = 0.0, seed: int = 0, centred: bool = True
) -> Features:
    """An (n, d) matrix with singular values ``s``, plus a mean of that length along a diagonal.

    If ``centred``, its columns have mean 0 before the mean is added, so that ``s`` are the singular
    values of the centred features.
    """
    rng = np.random.default_rng(seed)
    left = rng.normal(size=(n, len(s)))
    if centred:
        left -= left.mean(axis=0)
    left, _ = np.linalg.qr(left)
    right, _ = np.linalg.qr(rng.normal(size=(len(s), len(s))))
    return left * s @ right.T + mean / np.sqrt(len(s))


def in_blocks(features: Features, blocks: int = 16) -> list[FeatureSums]:
    return [FeatureSums.of(block) for block in np.array_split(features, blocks)]


def power(d: int, exponent: float) -> Features:
    """Singular values whose squares fall as a power."""
    return np.arange(1.0, d + 1) ** (-exponent / 2)
