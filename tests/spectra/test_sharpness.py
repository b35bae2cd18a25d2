"""Bounds at the matrices where they are attained: a bound that is too small by a little fails."""

import math

import numpy as np
import pytest

import rankscope as rs
from rankscope.metrics import condition_number, effective_rank, effective_rank_error
from rankscope.results.measure import measure
from rankscope.spectra.bounds import UNIT_ROUNDOFF as U
from rankscope.spectra.bounds import Ends, agree, gram_bound, is_resolved, svd_bound
from rankscope.spectra.matrices import Dense, LowRank
from rankscope.spectra.spectrum import Spectrum


def made(values: list[float], width: float = 0.0, floor: float = 0.0) -> Spectrum:
    """A spectrum of a square matrix whose values are known to a relative width."""
    s = np.array(values)
    return Spectrum(
        shape=(s.size, s.size),
        dtype="float64",
        values=s,
        bounds=Ends(s * (1 - width / 2), s * (1 + width / 2)),
        noise_floor=floor,
        noise_source="storage",
        route="gram",
    )


@pytest.mark.parametrize("k", [2, 5, 50])
@pytest.mark.parametrize("distance", [1e-6, 0.01, 0.3])
def test_the_entropy_bound_is_attained(k: int, distance: float) -> None:
    """One true value and k − 1 that are rounding: no bound can be smaller."""
    computed = np.r_[1 - distance, np.full(k - 1, distance / (k - 1))]
    lower = np.r_[1 - distance, np.zeros(k - 1)]
    true_error = effective_rank(computed) / effective_rank(lower) - 1
    assert effective_rank_error(computed, lower, computed) == pytest.approx(true_error, rel=1e-9)


def test_the_gram_bound_counts_the_long_side_and_the_solver() -> None:
    assert gram_bound(1.0, 0.0, long_side=1000, short_side=1) == 1000 * U
    assert gram_bound(0.0, 1.0, long_side=1000, short_side=3) == 32 * U


@pytest.mark.parametrize(("long_side", "found"), [(2, 5.7), (5, 12.3)])
def test_the_svd_bound_is_twice_the_worst_error_ever_found(long_side: int, found: float) -> None:
    """The largest errors of LAPACK that a search over small matrices found, in units of u·s₁."""
    assert svd_bound(1.0, long_side=long_side) >= 2 * found * U
    assert svd_bound(3.0, long_side=100) == 3 * 2 * 108 * U


@pytest.mark.parametrize(
    ("lower", "upper", "resolved"),
    [(0.5, 0.9, True), (0.9, 1.1, False), (0.9, 1.9, False), (2.99, 3.01, True), (2.9, 3.1, False)],
    ids=["below", "across", "far across", "above", "above but vague"],
)
def test_a_value_whose_interval_straddles_the_floor_is_not_resolved(
    lower: float, upper: float, resolved: bool
) -> None:
    floor = 1e-3
    low, high = np.array([1.0, lower * floor]), np.array([1.0, upper * floor])
    assert is_resolved((low + high) / 2, low, high, floor) is resolved


def test_a_spectrum_whose_energy_is_off_by_a_billionth_is_refused() -> None:
    assert agree(1 + 4 * U, 1.0, 10)
    assert not agree(1 + 1e-9, 1.0, 1000)


def test_a_multiplied_product_has_the_floor_of_its_decomposition() -> None:
    """Its own error is smaller here: 12u, where QR and SVD may err by 20u."""
    corner = np.diag([1.0, 0.0])
    found = rs.spectrum(LowRank(corner, corner))
    assert found.noise_floor >= svd_bound(1.0, long_side=2)


@pytest.mark.parametrize(
    ("inner", "route"), [(4, "low-rank"), (5, "gram"), (6, "gram"), (8, "gram"), (9, "gram")]
)
def test_factors_are_used_only_where_the_inner_side_is_the_smallest(
    rng: np.random.Generator, inner: int, route: str
) -> None:
    found = rs.spectrum(LowRank(rng.normal(size=(8, inner)), rng.normal(size=(inner, 5))))
    assert found.route.startswith("low-rank") is (route == "low-rank")


@pytest.mark.parametrize(("dtype", "source"), [("bfloat16", "storage"), ("float64", "arithmetic")])
def test_the_larger_floor_gives_its_name(rng: np.random.Generator, dtype: str, source: str) -> None:
    values = (rng.integers(-120, 120, size=(12, 12)) / 64).astype(np.float32)
    if dtype == "float64":
        found = rs.spectrum(Dense.stored(values.astype(np.float64) * (1 + 1e-15), dtype))
        assert found.noise_floor >= svd_bound(found.values[0], long_side=12)
    else:
        found = rs.spectrum(Dense.stored(values, dtype))
    assert found.noise_source == source


@pytest.mark.parametrize("scale", [2.0**-1074, 2.0**-1000, 2.0**900, 2.0**1023])
def test_matrices_at_the_ends_of_float64_have_their_spectrum(scale: float) -> None:
    s = rs.singular_values(np.diag([1.0, 1.0]) * scale)
    assert s == pytest.approx([scale, scale], rel=1e-12, abs=0)


def test_factors_at_the_ends_of_float64_have_their_spectrum() -> None:
    s = rs.singular_values(LowRank(np.full((4, 1), 1.7e308), np.full((1, 4), 2.0**-1020)))
    expected = 1.7e308 * 2.0**-1020 * 4
    assert s == pytest.approx([expected], rel=1e-12)


def test_values_that_end_subnormal_have_wider_intervals() -> None:
    found = made([1.0, 0.75]).times_power_of_two(-1074)
    assert (found.upper > found.values).any()
    assert (found.lower <= found.values).all()


def test_the_error_of_a_spectrum_covers_both_sides_of_its_intervals() -> None:
    s, low, high = np.array([[1.0, 0.5], [0.9, 0.2], [1.1, 0.55]])
    one = Spectrum((2, 2), "float64", s, Ends(low, high), 0.0, "storage", "gram")
    assert one.error == pytest.approx(0.3)


def test_tiny_matrices_have_their_condition_number() -> None:
    assert condition_number([2e-301, 1e-301]) == pytest.approx(2)


def test_a_value_counts_if_its_interval_is_above_the_floor() -> None:
    row = measure(made([1.0, 0.101], width=0.009, floor=0.1009))
    assert row["numerical_rank"] == 1
    assert row["condition_number_status"] == "lower-bound"


@pytest.mark.parametrize(("width", "known"), [(0.009, True), (0.03, False)])
def test_condition_numbers_divide_by_what_is_known_to_one_per_cent(
    width: float, known: bool
) -> None:
    row = measure(made([1.0, 0.5], width=width, floor=1e-3))
    assert (row["condition_number_r"] is not None) is known
    assert math.isfinite(float(row["numerical_rank"] or 0))
