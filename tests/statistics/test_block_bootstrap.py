from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from rankscope.statistics.block_bootstrap import (
    block_counts,
    block_length,
    pearson,
    percentile_interval,
    spearman,
)


def once(n: int) -> np.ndarray:
    """Every point drawn once: the series as it is."""
    return np.ones((1, n))


@pytest.mark.parametrize("n", [4, 8, 9, 27, 100])
def test_every_resample_has_as_many_points_as_the_series(n: int) -> None:
    counts = block_counts(n, resamples=50, seed=0)
    assert counts.shape == (50, n)
    assert (counts.sum(axis=1) == n).all()


@pytest.mark.parametrize("n", [8, 27, 64, 125, 1000])
def test_a_block_is_the_cube_root_long(n: int) -> None:
    assert block_length(n) == round(n ** (1 / 3))


def test_no_block_is_shorter_than_a_point() -> None:
    assert block_length(0) == block_length(1) == 1


def test_points_are_drawn_with_their_neighbours() -> None:
    n = 27
    for counts in block_counts(n, resamples=200, seed=1):
        drawn = np.flatnonzero(counts)
        gaps = np.diff(drawn, prepend=-9, append=n + 9) > 1
        assert (np.diff(np.flatnonzero(gaps)) >= block_length(n)).all()


def test_inner_points_are_drawn_equally_often() -> None:
    counts = block_counts(27, resamples=20_000, seed=2)
    inner = counts.mean(axis=0)[2:-2]
    assert inner == pytest.approx(np.full(23, 27 / 25), rel=0.05)


def test_the_seed_decides() -> None:
    first, same, other = (block_counts(20, resamples=9, seed=seed) for seed in (1, 1, 2))
    assert (first == same).all()
    assert (first != other).any()


@pytest.mark.parametrize("ties", [False, True], ids=["distinct", "ties"])
def test_drawing_every_point_once_is_the_correlation_itself(ties: bool) -> None:
    x, y = np.random.default_rng(3).normal(size=(2, 30))
    if ties:
        x, y = np.round(x), np.round(2 * y)
    assert spearman(x, y, once(30))[0] == pytest.approx(stats.spearmanr(x, y).statistic)
    assert pearson(x, y, once(30))[0] == pytest.approx(stats.pearsonr(x, y).statistic)


@pytest.mark.parametrize(
    ("weighted", "plain"),
    [(spearman, stats.spearmanr), (pearson, stats.pearsonr)],
    ids=["spearman", "pearson"],
)
def test_counting_points_is_repeating_them(weighted: object, plain: object) -> None:
    x, y = np.round(np.random.default_rng(4).normal(size=(2, 20)), 1)
    counts = block_counts(20, resamples=30, seed=5)
    found = weighted(x, y, counts)  # type: ignore[operator]
    for value, row in zip(found, counts.astype(int), strict=True):
        repeated = np.repeat(x, row), np.repeat(y, row)
        assert value == pytest.approx(plain(*repeated).statistic)  # type: ignore[operator]


@pytest.mark.parametrize("correlation", [spearman, pearson], ids=["spearman", "pearson"])
def test_what_does_not_vary_has_no_correlation(correlation: object) -> None:
    x = np.array([0.1, 0.1, 0.1, 0.7, 0.9])
    draws = np.array([[1.0, 1, 1, 1, 1], [3, 1, 1, 0, 0]])
    found = correlation(x, np.arange(5.0), draws)  # type: ignore[operator]
    assert np.isnan(found).tolist() == [False, True]
    assert np.isnan(correlation(np.full(5, 0.1), x, draws)).all()  # type: ignore[operator]


def test_a_shift_and_a_scale_change_nothing() -> None:
    x, y = np.random.default_rng(6).normal(size=(2, 25))
    counts = block_counts(25, resamples=20, seed=0)
    for correlation in (spearman, pearson):
        here = correlation(x, y, counts)
        assert correlation(1e-9 * x - 3, 1e150 * y, counts) == pytest.approx(here, rel=1e-5)


def test_the_interval_holds_the_middle_of_the_known_estimates() -> None:
    estimates = np.append(np.linspace(-1, 1, 2001), [math.nan] * 500)
    assert percentile_interval(estimates) == pytest.approx((-0.95, 0.95))
    assert np.isnan(percentile_interval(np.array([math.nan]))).all()
