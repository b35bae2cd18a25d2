from functools import reduce
from operator import add

import numpy as np
import pytest

from rankscope.errors import WrongSettingError
from rankscope.representations.feature_sums import FeatureSums, merged
from tests.representations.made import Features, in_blocks, made, power


def exact(features: Features) -> tuple[Features, Features]:
    """Scatter and second moment in extended precision."""
    x = features.astype(np.longdouble)
    centred = x - x.mean(axis=0)
    return centred.T @ centred, x.T @ x


def test_sums_are_what_their_names_say() -> None:
    x = made(power(5, 1), 40, mean=3)
    x[7] = 0
    sums = FeatureSums.of(x)
    norms = np.linalg.norm(x, axis=1)
    np.testing.assert_allclose(sums.mean, x.mean(axis=0))
    np.testing.assert_allclose(sums.scatter, np.cov(x.T) * 39)
    np.testing.assert_allclose(sums.about(0.0), x.T @ x)
    np.testing.assert_allclose(
        sums.directions, sum(row / np.linalg.norm(row) for row in x[norms > 0])
    )
    assert (sums.count, sums.nonzero, sums.nonfinite) == (40, 39, 0)
    assert sums.norms == pytest.approx(norms.sum())
    assert sums.longest == norms.max()
    assert sums.energy == pytest.approx((x**2).sum())


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]])
def test_blocks_of_any_size_merge_in_any_order(order: list[int]) -> None:
    x = made(power(4, 1), 50, mean=2)
    parts = np.split(x, [1, 20, 20])  # one of them empty
    sums = reduce(add, [FeatureSums.of(parts[i]) for i in order], FeatureSums.empty(4))
    whole = FeatureSums.of(x)
    for name in ("mean", "scatter", "directions", "norms", "longest", "count", "nonzero"):
        np.testing.assert_allclose(getattr(sums, name), getattr(whole, name), rtol=1e-12)


@pytest.mark.parametrize("mean", [0.0, 1.0, 1e6])
def test_the_error_is_within_its_bound_whatever_the_mean(mean: float) -> None:
    x = made(power(6, 3), 96, mean=mean)
    sums = merged(in_blocks(x))
    scatter, moment = exact(x)
    assert np.linalg.norm((sums.scatter - scatter).astype(float)) <= sums.error(centred=True)
    assert np.linalg.norm((sums.about(0.0) - moment).astype(float)) <= sums.error(centred=False)


def test_equal_tokens_have_a_spread_within_the_bound() -> None:
    sums = FeatureSums.of(np.tile([0.1, 1 / 3, 1e5 / 7], (97, 1)))
    assert 0 < np.linalg.norm(sums.scatter) <= sums.error(centred=True)


def test_a_mean_a_million_times_the_spread_does_not_cancel() -> None:
    x = made(power(6, 1), 96, mean=1e6)
    scatter = exact(x)[0].astype(float)
    plain = x.T @ x - 96 * np.outer(x.mean(axis=0), x.mean(axis=0))  # what must not be done
    scale = np.linalg.norm(scatter)
    assert np.linalg.norm(merged(in_blocks(x)).scatter - scatter) < 1e-8 * scale
    assert np.linalg.norm(plain - scatter) > 1e-4 * scale


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_tokens_that_are_not_finite_are_counted_and_left_out(bad: float) -> None:
    x = made(power(3, 1), 12)
    spoilt = np.vstack([x[:5], np.full((1, 3), bad), x[5:]])
    sums = FeatureSums.of(spoilt)
    assert (sums.count, sums.nonfinite) == (12, 1)
    np.testing.assert_array_equal(sums.scatter, FeatureSums.of(x).scatter)


def test_features_of_any_float_type_are_summed_in_float64() -> None:
    x = made(power(3, 1), 12).astype(np.float16)
    np.testing.assert_array_equal(
        FeatureSums.of(x).scatter, FeatureSums.of(x.astype(np.float64)).scatter
    )


def test_what_is_not_a_feature_matrix_is_refused() -> None:
    with pytest.raises(WrongSettingError, match=r"\(2, 3, 4\).*\(n, d\)"):
        FeatureSums.of(np.zeros((2, 3, 4)))
    with pytest.raises(WrongSettingError, match=r"\[2, 3\] dimensions"):
        merged([FeatureSums.empty(2), FeatureSums.empty(3)])


def test_the_memory_is_that_of_the_second_moment() -> None:
    assert FeatureSums.empty(100).nbytes == 8 * (100 * 100 + 2 * 100)
