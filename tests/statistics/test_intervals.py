from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rankscope.statistics.intervals import (
    CONFIDENCE,
    mean_interval,
    mean_of_means_interval,
    proportion_interval,
    ratio_interval,
)

Z = float(stats.norm.ppf((1 + CONFIDENCE) / 2))
PROPORTIONS = st.floats(0, 1)
TRIALS = st.floats(1, 1e6)


@given(PROPORTIONS, TRIALS)
def test_a_proportion_lies_z_standard_errors_from_the_ends_of_its_interval(
    proportion: float, n: float
) -> None:
    # Wilson's definition: the p for which |p̂ − p| = z sqrt(p (1 − p) / n).
    for end in proportion_interval(proportion, n):
        off = (proportion - end) ** 2 - Z**2 * end * (1 - end) / n
        assert off == pytest.approx(0, abs=1e-12)


@given(PROPORTIONS, TRIALS)
def test_an_interval_of_a_proportion_is_within_bounds_around_it(
    proportion: float, n: float
) -> None:
    low, high = proportion_interval(proportion, n)
    assert 0 <= low <= proportion + 1e-12
    assert proportion - 1e-12 <= high <= 1
    assert high - low > 0


@given(PROPORTIONS, TRIALS)
def test_failures_have_the_mirrored_interval(proportion: float, n: float) -> None:
    low, high = proportion_interval(proportion, n)
    mirrored = proportion_interval(1 - proportion, n)
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-12)


@given(PROPORTIONS, TRIALS, st.floats(1.01, 100))
def test_more_trials_make_a_proportion_surer(proportion: float, n: float, more: float) -> None:
    low, high = proportion_interval(proportion, n)
    lower, higher = proportion_interval(proportion, n * more)
    assert higher - lower < high - low


@pytest.mark.parametrize("n", [1, 10, 1000])
def test_where_all_trials_went_one_way_the_interval_is_known(n: int) -> None:
    assert proportion_interval(0.0, n) == pytest.approx((0, Z**2 / (n + Z**2)), abs=1e-15)
    assert proportion_interval(1.0, n) == pytest.approx((n / (n + Z**2), 1), abs=1e-15)


@pytest.mark.parametrize("n", [100, 1000])
def test_a_proportion_is_covered_about_as_often_as_the_interval_says(n: int) -> None:
    # Exact: the probability of every outcome whose interval holds the true proportion. It jumps
    # with the proportion, so the mean over many is what comes near the level.
    true = np.linspace(0.05, 0.95, 181)
    ends = np.array([proportion_interval(k / n, n) for k in range(n + 1)])
    covers = (ends[:, :1] <= true) & (true <= ends[:, 1:])
    coverage = (stats.binom.pmf(np.arange(n + 1)[:, None], n, true) * covers).sum(axis=0)
    assert coverage.mean() == pytest.approx(CONFIDENCE, abs=0.005)
    assert coverage.min() > 0.9


VALUES = np.array([1.0, 4.0, 2.5, -3.0, 7.0])
WEIGHTS = np.array([2.0, 1.0, 5.0, 3.0, 0.5])


def test_an_interval_of_a_mean_is_students() -> None:
    expected = stats.t.interval(CONFIDENCE, 4, loc=VALUES.mean(), scale=stats.sem(VALUES))
    assert mean_interval(VALUES) == pytest.approx(expected, rel=1e-12)


def test_an_interval_of_a_ratio_has_the_ratio_in_its_middle() -> None:
    low, high = ratio_interval(VALUES, WEIGHTS)
    assert (low + high) / 2 == pytest.approx(VALUES.sum() / WEIGHTS.sum())


def test_an_interval_of_a_ratio_of_two_pairs_has_a_closed_form() -> None:
    # Residuals ±e, e = (a d − b c) / (c + d), of the pairs (a, c) and (b, d); t with one degree of
    # freedom is tan.
    a, b, c, d = 3.0, 5.0, 2.0, 7.0
    low, high = ratio_interval(np.array([a, b]), np.array([c, d]))
    factor = math.tan(math.pi * CONFIDENCE / 2)
    half = factor * 2 * abs(a * d - b * c) / (c + d) ** 2
    assert (high - low) / 2 == pytest.approx(half, rel=1e-9)


@pytest.mark.parametrize("scale", [1e-9, 3.0, 1e12])
def test_units_scale_an_interval_of_a_ratio(scale: float) -> None:
    low, high = ratio_interval(VALUES, WEIGHTS)
    assert ratio_interval(VALUES * scale, WEIGHTS) == pytest.approx((low * scale, high * scale))
    assert ratio_interval(VALUES, WEIGHTS * scale) == pytest.approx((low / scale, high / scale))


def test_a_ratio_that_never_varies_is_certain() -> None:
    assert ratio_interval(3 * WEIGHTS, WEIGHTS) == pytest.approx((3, 3), abs=1e-12)


@pytest.mark.parametrize(
    ("numerators", "denominators"),
    [([], []), ([1.0], [2.0]), ([1.0, 2.0], [0.0, 0.0]), ([1.0, math.nan], [1.0, 1.0])],
    ids=["none", "one", "nothing-to-divide-by", "nan"],
)
def test_where_a_ratio_has_no_interval_its_ends_are_nan(
    numerators: list[float], denominators: list[float]
) -> None:
    ends = ratio_interval(np.array(numerators), np.array(denominators))
    assert [math.isnan(end) for end in ends] == [True, True]


@pytest.mark.parametrize("documents", [8, 60])
def test_a_ratio_is_covered_about_as_often_as_the_interval_says(documents: int) -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(2000):
        tokens = rng.uniform(100, 300, size=documents)
        losses = tokens * rng.normal(3.0, 0.4, size=documents)  # each document has its own mean
        low, high = ratio_interval(losses, tokens)
        covered += low <= 3.0 <= high
    assert covered / 2000 == pytest.approx(CONFIDENCE, abs=0.02)


@pytest.mark.parametrize("number", [1, 4, 25])
def test_a_mean_of_k_like_quantities_is_surer_by_the_root_of_k(number: int) -> None:
    low, high = mean_of_means_interval([(1.0, 3.0)] * number, 2.0)
    assert (low, high) == pytest.approx((2 - number**-0.5, 2 + number**-0.5))


def test_half_widths_add_as_squares() -> None:
    low, high = mean_of_means_interval([(-3.0, 3.0), (6.0, 14.0)], 5.0)
    assert (low, high) == pytest.approx((2.5, 7.5))  # sqrt(3² + 4²) / 2 = 2.5


@pytest.mark.parametrize(
    "missing", [(math.nan, math.nan), (1.0, math.inf)], ids=["nan", "infinite"]
)
def test_without_one_of_the_intervals_a_mean_has_none(missing: tuple[float, float]) -> None:
    ends = mean_of_means_interval([(1.0, 2.0), missing], 1.5)
    assert [math.isnan(end) for end in ends] == [True, True]
