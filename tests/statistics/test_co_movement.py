"""Intervals of correlations hold what they promise, on pairs whose relation was made."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from rankscope.statistics.co_movement import (
    DEGREE,
    FEWEST_FOR_INTERVAL,
    METHODS,
    Method,
    correlation_of,
    interval_of,
    later_changes,
)

Values = NDArray[np.float64]
PAIRS = 800


def autoregressive(rng: np.random.Generator, shape: tuple[int, int], memory: float) -> Values:
    noise = rng.normal(size=(shape[0], shape[1] + 60))
    series = np.zeros_like(noise)
    for t in range(1, noise.shape[1]):
        series[:, t] = memory * series[:, t - 1] + noise[:, t]
    return series[:, -shape[1] :]


def unrelated(kind: str, n: int, rng: np.random.Generator) -> tuple[Values, Values]:
    """Pairs of series whose changes have nothing to do with each other, but for their trends."""
    t = np.arange(1.0, n + 1)
    noise = [rng.normal(size=(PAIRS, n)) for _ in range(2)]
    if kind == "independent":
        return noise[0], noise[1]
    if kind == "autoregressive":
        shape = PAIRS, n
        return autoregressive(rng, shape, 0.8), autoregressive(rng, shape, 0.8)
    if kind == "walks":
        return noise[0].cumsum(axis=1), noise[1].cumsum(axis=1)
    decays = {
        "fast decays": (np.exp(-t / (0.05 * n)), 0.02),
        "slow decays": (np.exp(-t / (0.2 * n)), 0.02),
        "smooth decays": (np.exp(-t / (0.2 * n)), 0.003),
        "power laws": (t**-0.5, 0.01),
    }
    trend, size = decays[kind]
    return trend + size * noise[0], 2 * trend + size * noise[1]


KINDS = (
    *("independent", "autoregressive", "walks"),
    *("fast decays", "slow decays", "smooth decays", "power laws"),
)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_the_interval_of_unrelated_pairs_holds_zero_as_often_as_it_says(
    kind: str, method: Method
) -> None:
    n, held = 40, []
    for x, y in zip(*unrelated(kind, n, np.random.default_rng(5)), strict=True):
        low, high = interval_of(later_changes(x), later_changes(y), method)
        held.append(low <= 0 <= high)
    # 93 to 97 %, and three standard deviations of a share of this many pairs.
    slack = 3 * math.sqrt(0.95 * 0.05 / PAIRS)
    assert 0.93 - slack < np.mean(held) < 0.97 + slack


@pytest.mark.parametrize("kind", ["independent", "walks"])
@pytest.mark.slow
def test_the_interval_of_related_pairs_holds_their_correlation(kind: str) -> None:
    made, held = 0.6, []
    x, other = unrelated(kind, 40, np.random.default_rng(6))
    for one, two in zip(x, made * x + math.sqrt(1 - made**2) * other, strict=True):
        low, high = interval_of(later_changes(one), later_changes(two), "pearson")
        held.append(low <= made <= high)
    slack = 3 * math.sqrt(0.95 * 0.05 / PAIRS)
    assert 0.93 - slack < np.mean(held) < 0.97 + slack


@pytest.mark.slow
def test_plain_differences_of_decays_would_not_hold_it() -> None:
    """Why the early part and the trend are taken out: the fault that this module is about."""
    x, y = unrelated("slow decays", 40, np.random.default_rng(7))
    pairs = zip(np.diff(x), np.diff(y), strict=True)
    held = [low <= 0 <= high for low, high in (interval_of(a, b, "pearson") for a, b in pairs)]
    assert np.mean(held) < 0.5


def test_what_is_smooth_to_the_end_has_no_interval() -> None:
    t = np.arange(40.0)
    x, y = later_changes(np.exp(-t / 9)), later_changes(np.exp(-t / 12))
    assert abs(correlation_of(x, y, "pearson")) > 0.9
    assert all(math.isnan(bound) for bound in interval_of(x, y, "pearson"))


@pytest.mark.parametrize("degree", range(DEGREE + 2))
def test_a_polynomial_trend_leaves_nothing(degree: int) -> None:
    levels = np.linspace(0, 1, 30) ** degree
    assert not later_changes(levels).any()


def test_the_first_third_of_the_changes_does_not_count() -> None:
    levels = np.random.default_rng(8).normal(size=31)
    other = levels.copy()
    other[:10] += np.arange(10) * 100.0
    np.testing.assert_array_equal(later_changes(levels), later_changes(other))
    assert len(later_changes(levels)) == 20


def test_correlations_are_those_of_scipy() -> None:
    x, y = np.random.default_rng(9).integers(0, 6, size=(2, 25)).astype(float)
    assert correlation_of(x, y, "pearson") == pytest.approx(stats.pearsonr(x, y).statistic)
    assert correlation_of(x, y, "spearman") == pytest.approx(stats.spearmanr(x, y).statistic)


def test_what_varies_by_rounding_alone_has_no_correlation() -> None:
    still = 0.1 * (1 + np.finfo(float).eps * np.arange(20))
    assert math.isnan(correlation_of(still, np.arange(20.0), "pearson"))


def test_too_few_points_have_no_interval() -> None:
    x, y = np.random.default_rng(10).normal(size=(2, FEWEST_FOR_INTERVAL))
    assert not math.isnan(interval_of(x, y, "pearson")[0])
    assert math.isnan(interval_of(x[1:], y[1:], "pearson")[0])
