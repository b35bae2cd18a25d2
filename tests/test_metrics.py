from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rankscope.metrics import (
    condition_number,
    effective_rank,
    effective_rank_error,
    frobenius_norm,
    gaussian_per,
    noise_matters,
    noise_share,
    nuclear_norm,
    numerical_rank,
    participation_ratio,
    proportional_effective_rank,
    resolved_effective_rank,
    spectral_norm,
    stable_rank,
)

spectra = arrays(np.float64, st.integers(1, 40), elements=st.floats(1e-6, 1e6)).map(
    lambda s: np.sort(s)[::-1]
)


def test_a_value_whose_share_leaves_the_range_of_float64_counts_for_nothing() -> None:
    assert effective_rank([3.2e15, 7.9e-309]) == 1


@pytest.mark.parametrize("k", [1, 3, 8])
def test_k_equal_singular_values_have_effective_rank_k(k: int) -> None:
    s = np.concatenate([np.full(k, 0.5), np.zeros(4)])
    assert effective_rank(s) == pytest.approx(k)
    assert stable_rank(s) == pytest.approx(k)
    assert participation_ratio(s) == pytest.approx(k)


@given(spectra, st.floats(1e-12, 1e12))
def test_ranks_do_not_depend_on_scale(s: np.ndarray, scale: float) -> None:
    for metric in (effective_rank, stable_rank, participation_ratio, condition_number):
        assert metric(scale * s) == pytest.approx(metric(s), rel=1e-9)


@given(spectra)
def test_stable_rank_is_below_participation_ratio_is_below_effective_rank(s: np.ndarray) -> None:
    ranks = [1, stable_rank(s), participation_ratio(s), effective_rank(s), s.size]
    assert all(lower <= upper * (1 + 1e-9) for lower, upper in pairwise(ranks))


@given(spectra)
def test_norms_are_ordered(s: np.ndarray) -> None:
    assert spectral_norm(s) <= frobenius_norm(s) * (1 + 1e-12)
    assert frobenius_norm(s) <= nuclear_norm(s) * (1 + 1e-12)


def test_per_divides_by_the_smaller_side() -> None:
    s = np.ones(16)
    assert proportional_effective_rank(s) == pytest.approx(1)
    assert proportional_effective_rank(s, shape=(96, 384)) == pytest.approx(16 / 96)


def test_a_zero_matrix_has_norms_and_nothing_else() -> None:
    s = np.zeros(4)
    assert (spectral_norm(s), frobenius_norm(s), nuclear_norm(s)) == (0, 0, 0)
    for metric in (effective_rank, stable_rank, participation_ratio, condition_number):
        assert np.isnan(metric(s))


def test_the_condition_number_past_the_last_value_is_infinite() -> None:
    s = np.array([4.0, 2.0])
    assert condition_number(s) == 2
    assert condition_number(s, at=3) == np.inf
    assert condition_number([4.0, 0.0]) == np.inf


def test_the_numerical_rank_counts_what_is_certainly_above_the_floor() -> None:
    assert numerical_rank([3.0, 1.0, 0.5, 0.1], 0.5) == 2


def test_noise_share_is_what_may_be_noise_of_the_sum() -> None:
    assert noise_share([3.0, 1.0, 0.0, 0.0], 0.1, rank=2) == pytest.approx(0.2 / 4)
    assert noise_share([1e-9, 1e-9], 1.0, rank=0) == 1


@settings(max_examples=200)
@given(spectra, st.floats(1e-12, 1e-2), st.randoms(use_true_random=False))
def test_the_bound_on_per_covers_every_spectrum_in_the_intervals(
    s: np.ndarray, width: float, random: object
) -> None:
    error = width * s[0]
    lower, upper = np.maximum(s - error, 0), s + error
    inside = np.random.default_rng(s.size).uniform(lower, upper)
    bound = effective_rank_error(s, lower, upper)
    assert abs(effective_rank(s) / effective_rank(inside) - 1) <= bound + 1e-12


@pytest.mark.parametrize("shape", [(64, 64), (64, 128), (200, 50), (40, 41)])
def test_the_gaussian_baseline_is_the_mean_of_simulated_matrices(
    shape: tuple[int, int], rng: np.random.Generator
) -> None:
    found = [
        proportional_effective_rank(np.linalg.svd(rng.normal(size=shape), compute_uv=False))
        for _ in range(40)
    ]
    q = min(shape)
    assert -0.3 / q <= np.mean(found) - gaussian_per(shape) <= 0.1 / q


def test_a_vector_has_a_gaussian_baseline_of_one() -> None:
    assert gaussian_per((1, 50)) == 1
    assert gaussian_per((50, 2000)) == gaussian_per((2000, 50)) > 0.99


def test_values_in_range_have_ranks_whatever_their_sum_is() -> None:
    s = np.full(24, 1e308)
    assert effective_rank(s) == pytest.approx(24)
    assert effective_rank([1e308, 1e308]) == pytest.approx(2)
    assert nuclear_norm(s) == np.inf
    lower, upper = s * (1 - 1e-9), s * (1 + 1e-9)
    assert 0 < effective_rank_error(s, lower, upper) < 1e-6
    assert noise_share(s, 1e307, rank=12) == pytest.approx(0.05)
    assert stable_rank(s) == pytest.approx(24)


def test_the_resolved_effective_rank_counts_values_above_the_floor() -> None:
    s = np.array([4.0, 4.0, 1.0, 0.1])
    assert resolved_effective_rank(s, s - 0.01, 0.5) == effective_rank(s[:3])
    assert resolved_effective_rank(s, s - 0.01, 0.0) == effective_rank(s)
    assert resolved_effective_rank(s, [4.0, 4.0, 0.4, 0.0], 0.5) == 2  # the third may be below
    assert np.isnan(resolved_effective_rank(s, s, 10.0))


def test_noise_matters_where_per_and_per_resolved_differ() -> None:
    per, resolved = np.array([0.5, 0.5, 0.5, np.nan]), np.array([0.4951, 0.4949, np.nan, np.nan])
    assert noise_matters(per, resolved).tolist() == [False, True, True, False]
    assert not noise_matters(0.5, 0.5)
