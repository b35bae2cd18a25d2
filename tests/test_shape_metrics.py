import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rankscope.shape_metrics import (
    energy_rank,
    gaussian_edge,
    gaussian_product,
    gaussian_tail_index,
    outliers,
    svd_entropy,
    tail_index,
)

VALUES = st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=12).map(
    lambda x: np.sort(np.array(x))[::-1]
)


def test_entropy_is_one_for_equal_values_and_zero_for_a_single_direction() -> None:
    assert svd_entropy(np.full(7, 3.0)) == pytest.approx(1)
    assert svd_entropy([2.0, 0, 0]) == 0
    assert math.isnan(svd_entropy([1.0])) and math.isnan(svd_entropy([0.0, 0]))


@given(VALUES)
def test_entropy_is_that_of_the_energies(s: np.ndarray) -> None:
    expected = stats.entropy(s**2) / math.log(s.size)
    assert svd_entropy(s) == pytest.approx(expected, abs=1e-12)
    assert svd_entropy(1e-200 * s) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("s", "share", "count"),
    [([3, 1, 0], 0.9, 1), ([3, 1, 0], 0.91, 2), ([1, 1, 1, 1], 0.75, 3), ([1, 0, 0], 0.99, 1)],
)
def test_the_energy_rank_is_how_many_values_hold_the_share(
    s: list[float], share: float, count: int
) -> None:
    # A share that is met exactly may go either way in floating point: ask for a little less.
    assert energy_rank(s, share - 1e-12) == count


def test_a_zero_matrix_has_no_energy_rank() -> None:
    assert math.isnan(energy_rank([0.0, 0.0], 0.9))


@pytest.mark.parametrize("exponent", [2.0, 3.5])
def test_the_tail_index_is_the_exponent_of_a_power_law(exponent: float) -> None:
    # Quantiles of a Pareto law of this density exponent; λ = s².
    squares = stats.pareto(exponent - 1).isf((np.arange(4000) + 0.5) / 4000)
    s = np.sqrt(squares)
    assert tail_index(s, s, s, noise_floor=0).value == pytest.approx(exponent, rel=0.01)


@given(VALUES, st.floats(0, 0.3), st.integers(0, 2**32 - 1))
def test_the_interval_of_the_tail_index_holds_that_of_any_true_values(
    s: np.ndarray, width: float, seed: int
) -> None:
    lower, upper = s * (1 - width), s * (1 + width)
    true = np.sort(np.random.default_rng(seed).uniform(lower, upper))[::-1]
    found, truth = (tail_index(*x, noise_floor=0) for x in ((lower, s, upper), (true,) * 3))
    assert found.low * (1 - 1e-12) <= truth.value <= found.high * (1 + 1e-12)


def test_the_tail_index_needs_its_threshold_above_the_floor() -> None:
    s = np.array([4.0, 3, 2, 1])
    assert tail_index(s, s, s, noise_floor=1.99).value > 1
    assert math.isnan(tail_index(s, s, s, noise_floor=2.0).value)
    assert tail_index(*(np.ones(4),) * 3, noise_floor=0).value == math.inf


@pytest.mark.parametrize(
    ("shape", "expected"), [((384, 384), 2.1), ((96, 384), 3.4), ((192, 384), 2.7)]
)
def test_a_gaussian_matrix_has_the_tail_that_its_shape_gives(
    shape: tuple[int, int], expected: float
) -> None:
    rng = np.random.default_rng(3)
    drawn = [np.linalg.svd(rng.normal(size=shape), compute_uv=False) for _ in range(6)]
    mean = np.mean([tail_index(s, s, s, noise_floor=0).value for s in drawn])
    assert gaussian_tail_index(shape) == pytest.approx(mean, rel=0.03)
    assert gaussian_tail_index(shape[::-1]) == pytest.approx(expected, abs=0.06)


@pytest.mark.parametrize("shape", [(16, 64), (32, 32), (48, 32)])
def test_one_gaussian_matrix_in_a_hundred_has_an_outlier(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(4)
    drawn = np.linalg.svd(rng.normal(size=(2000, *shape)), compute_uv=False)
    share = np.mean([outliers(s, shape) > 0 for s in drawn])
    assert 0.001 < share < 0.02


@pytest.mark.parametrize("spikes", [0, 1, 5])
def test_spikes_above_the_bulk_are_counted(spikes: int) -> None:
    rng = np.random.default_rng(6)
    bulk = rng.normal(size=(96, 192))
    left, _ = np.linalg.qr(rng.normal(size=(96, 5)))
    right, _ = np.linalg.qr(rng.normal(size=(192, 5)))
    planted = bulk + 60 * left[:, :spikes] @ right[:, :spikes].T
    s = np.linalg.svd(planted, compute_uv=False)
    assert outliers(s, (96, 192)) == spikes
    assert outliers(1e-9 * s, (192, 96)) == spikes


def test_the_edge_is_above_that_of_marchenko_and_pastur() -> None:
    # σ(√m + √n) over σ√(n · median), with the median 0.6528 of a square matrix.
    assert gaussian_edge((4096, 4096)) == pytest.approx(2 / math.sqrt(0.6528), rel=0.01)
    assert gaussian_edge((64, 64)) > 1.02 * gaussian_edge((4096, 4096))


@pytest.mark.parametrize(("s", "shape"), [([1.0], (1, 9)), ([3.0, 2], (4, 4)), ([1, 0, 0], (3, 3))])
def test_there_are_no_outliers_without_a_bulk(s: list[float], shape: tuple[int, int]) -> None:
    assert math.isnan(outliers(s, shape))


@pytest.mark.parametrize(("shape", "inner"), [((20, 12), 5), ((8, 8), 8), ((30, 40), 1)])
def test_products_of_triangles_have_the_law_of_products_of_gaussian_factors(
    shape: tuple[int, int], inner: int
) -> None:
    rng = np.random.default_rng(1)
    products = [
        np.linalg.svd(rng.normal(size=(shape[0], inner)) @ rng.normal(size=(inner, shape[1])))[1]
        for _ in range(400)
    ]
    direct = np.array(products)[:, :inner]
    drawn = np.array(gaussian_product(shape, inner))
    assert drawn.shape[1] == inner and (np.diff(drawn) <= 0).all()
    spread = direct.std(axis=0) / np.sqrt(len(drawn))
    assert (np.abs(drawn.mean(axis=0) - direct.mean(axis=0)) < 4 * spread).all()


def test_a_product_of_rank_one_is_as_large_as_its_two_gaussian_vectors() -> None:
    s = np.concatenate(gaussian_product((30, 40), 1))
    mean = stats.chi(30).mean() * stats.chi(40).mean()
    assert s.mean() == pytest.approx(mean, rel=0.15)
