import numpy as np
import pytest
from scipy import stats

from rankscope.representations.jackknife import jackknife_interval


def test_for_a_mean_it_is_students_interval() -> None:
    x = np.random.default_rng(0).normal(size=16)
    without = (x.sum() - x) / 15
    expected = stats.t.interval(0.95, 15, x.mean(), stats.sem(x))
    assert jackknife_interval(x.mean(), without, np.ones(16)) == pytest.approx(expected)


def test_for_a_mean_of_unequal_blocks_it_is_the_weighted_formula() -> None:
    rng = np.random.default_rng(1)
    sizes = rng.integers(5, 50, size=16).astype(float)
    means = rng.normal(size=16)
    total = (sizes * means).sum()
    value, n = total / sizes.sum(), sizes.sum()
    without = (total - sizes * means) / (n - sizes)
    # The pseudo-value of a mean is the block's own mean: pseudo = h·value − (h − 1)·without.
    variance = np.mean((means - value) ** 2 * sizes / (n - sizes))
    half = stats.t.ppf(0.975, 15) * np.sqrt(variance)
    assert jackknife_interval(value, without, sizes) == pytest.approx((value - half, value + half))


@pytest.mark.parametrize("without", [[1.0], [1.0, np.nan]])
def test_there_is_no_interval_without_blocks_or_numbers(without: list[float]) -> None:
    assert np.isnan(jackknife_interval(1.0, np.array(without), np.ones(len(without)))).all()
