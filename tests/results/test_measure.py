"""What the columns of one row say to each other, whatever the matrix."""

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from rankscope.results.measure import METRICS, measure
from rankscope.spectra.bounds import Within
from rankscope.spectra.matrices import Dense, LowRank
from rankscope.spectra.singular_values import spectrum
from rankscope.spectra.spectrum import Norm, Spectrum

Matrix = NDArray[np.float64]
Row = dict[str, float | int | str | None]

shapes = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7)
finite = st.floats(-1e150, 1e150, allow_subnormal=True)
dense = arrays(np.float64, shapes, elements=finite).map(spectrum)
single = arrays(np.float32, shapes, elements=st.floats(width=32, allow_nan=False)).map(spectrum)
graded = st.tuples(st.integers(0, 2**32 - 1), st.integers(2, 9), st.floats(0, 18)).map(
    lambda made: spectrum(make_graded(*made))
)
products = st.tuples(st.integers(0, 2**32 - 1), st.integers(1, 9), st.floats(0, 18)).map(
    lambda made: spectrum(make_product(*made))
)
any_spectrum = st.one_of(dense, single, graded, products)


def make_graded(seed: int, n: int, decades: float) -> Matrix:
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    return np.asarray(np.logspace(0, -decades, n)[:, None] * q)


def make_product(seed: int, inner: int, decades: float) -> LowRank:
    rng = np.random.default_rng(seed)
    left = rng.normal(size=(8, inner)) * np.logspace(0, -decades, inner)
    return LowRank(left, rng.normal(size=(inner, 6)))


@settings(max_examples=200, deadline=None)
@given(any_spectrum)
def test_only_conditions_and_tails_are_infinite(found: Spectrum) -> None:
    row = measure(found)
    assert tuple(row) == METRICS
    for name, value in row.items():
        if isinstance(value, float) and not name.startswith(("condition_number", "tail_index")):
            assert math.isfinite(value), name
        assert value is None or isinstance(value, str) or not math.isnan(value), name


@settings(max_examples=200, deadline=None)
@given(any_spectrum)
def test_the_ranks_are_ordered(found: Spectrum) -> None:
    row = measure(found)
    if row["effective_rank"] is None:
        assert found.status in ("zero", "skipped:overflow", "nonfinite")
        return
    names = "stable_rank", "participation_ratio", "effective_rank", "max_rank"
    ranks = [1.0, *(float(row[name]) for name in names)]  # type: ignore[arg-type]
    assert all(low <= high * (1 + 1e-9) for low, high in pairwise(ranks))
    assert 0 < row["per"] <= 1 + 1e-9  # type: ignore[operator]
    assert 0 <= row["numerical_rank"] <= row["max_rank"] <= min(found.shape)  # type: ignore[operator]
    assert 0 <= row["noise_share"] <= 1  # type: ignore[operator]
    assert row["per_error"] >= 0  # type: ignore[operator]


@settings(max_examples=200, deadline=None)
@given(any_spectrum)
def test_a_condition_number_is_known_to_one_per_cent_or_a_bound(found: Spectrum) -> None:
    row, q = measure(found), min(found.shape)
    number, status = row["condition_number"], row["condition_number_status"]
    if number is None:
        assert status == ""
        return
    assert isinstance(number, float) and number >= 1
    if status == "ok":
        assert found.lower[q - 1] > found.noise_floor
        assert found.upper[q - 1] - found.lower[q - 1] <= 0.01 * found.values[q - 1]
        assert number == found.values[0] / found.values[q - 1]
    elif status == "lower-bound":
        greatest_last = max(found.upper[q - 1], found.noise_floor)
        assert number == 1 or number <= found.lower[0] / greatest_last * (1 + 1e-15)
    else:
        assert status == "inf" and number == math.inf and found.max_rank < q


@settings(max_examples=200, deadline=None)
@given(any_spectrum)
def test_no_condition_number_divides_by_what_is_not_known(found: Spectrum) -> None:
    row = measure(found)
    if row["effective_rank"] is None:
        assert row["condition_number_r"] is None and row["condition_number_90"] is None
        return
    rank, place = row["numerical_rank"], -(-9 * min(found.shape) // 10)
    assert isinstance(rank, int)
    for name, at in (("condition_number_r", rank), ("condition_number_90", place)):
        value = row[name]
        if value is None or value == math.inf:
            assert value is None or at > found.max_rank
            continue
        assert at <= rank
        assert found.upper[at - 1] - found.lower[at - 1] <= 0.01 * found.values[at - 1]


@settings(max_examples=100, deadline=None)
@given(graded)
def test_the_condition_numbers_are_ordered_where_all_are_known(found: Spectrum) -> None:
    row = measure(found)
    if row["condition_number_status"] == "ok":
        assert row["condition_number_r"] == row["condition_number"]
        assert row["condition_number_90"] <= row["condition_number"]  # type: ignore[operator]
        assert row["condition_number_raw"] == row["condition_number"]


@pytest.mark.parametrize("matrix", [np.full((3, 4), np.nan), np.ones((0, 3))])
def test_a_matrix_without_a_spectrum_has_no_number(matrix: Matrix) -> None:
    assert {x for x in measure(spectrum(matrix)).values() if x not in (None, "")} == set()


def test_a_zero_matrix_has_norms_and_no_ranks() -> None:
    row = measure(spectrum(Dense.stored(np.zeros((4, 6), np.float32))))
    assert row["spectral_norm"] == row["frobenius_norm"] == row["nuclear_norm"] == 0
    for name in ("effective_rank", "per", "numerical_rank", "condition_number", "noise_share"):
        assert row[name] is None


def test_a_value_known_to_a_third_gives_a_lower_bound_only(rng: np.random.Generator) -> None:
    n = 40
    q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    last = 8 * n * 2.0**-53  # some four times what QR and SVD may err by
    found = spectrum(np.r_[np.ones(n - 1), last][:, None] * q)
    row = measure(found)
    assert row["condition_number_status"] == "lower-bound"
    assert row["condition_number"] <= 1 / last  # type: ignore[operator]


def hand_made(values: list[float], *, error: float, floor: float, **columns: object) -> Spectrum:
    s = np.array(values)
    made: dict[str, object] = {
        "shape": (len(s), 9),
        "dtype": "float32",
        "values": s,
        "bounds": Within(error),
        "noise_floor": floor,
        "noise_source": "storage",
        "route": "gram",
    }
    return Spectrum(**made | columns)  # type: ignore[arg-type]


def test_a_change_has_a_signal_to_noise_ratio() -> None:
    found = hand_made([8.0, 2.0, 0.25, 0.125], error=1e-9, floor=0.5)
    row = measure(found, whole=False)
    assert row["signal_to_noise"] == 16
    assert row["condition_number_r"] == 4 and row["condition_number_status"] == ""
    for name in ("condition_number", "condition_number_raw", "condition_number_90"):
        assert row[name] is None
    weight = measure(found)
    assert weight["signal_to_noise"] is None
    assert weight["condition_number"] == pytest.approx(16) and weight["condition_number_raw"] == 64


def test_per_resolved_counts_what_is_certainly_above_the_floor() -> None:
    row = measure(hand_made([4.0, 4.0, 0.52, 0.1], error=0.05, floor=0.5))
    assert row["per_resolved"] == pytest.approx(2 / 4)
    assert row["per_resolved"] < row["per"]  # type: ignore[operator]
    clean = measure(hand_made([4.0, 3.0, 2.0, 1.0], error=1e-9, floor=0.5))
    assert clean["per_resolved"] == clean["per"]
    noise = measure(hand_made([0.4, 0.3, 0.2, 0.1], error=1e-9, floor=0.5))
    assert noise["per_resolved"] is None and noise["per"] is not None


def test_values_below_the_error_of_the_arithmetic_have_no_rank() -> None:
    values = [0.4, 0.3, 0.2, 0.1]
    unresolved = measure(hand_made(values, error=0.5, floor=0.5, noise_source="arithmetic"))
    assert unresolved["numerical_rank"] == 0 and unresolved["spectral_norm"] == 0.4
    for name in (
        "effective_rank",
        "per",
        "per_error",
        "stable_rank",
        "condition_number",
        "per_resolved",
    ):
        assert unresolved[name] is None
    assert measure(hand_made(values, error=1e-9, floor=0.5))["per"] is not None


def test_relative_size_is_within_its_bound_at_both_ends() -> None:
    found = hand_made([3.0, 4.0][::-1], error=0.5, floor=1e-9, before=Norm(50.0, 5.0))
    row = measure(found, whole=False)
    assert row["relative_size"] == pytest.approx(0.1)
    high, low = np.hypot(4.5, 3.5) / 45, np.hypot(3.5, 2.5) / 55
    expected = max(high - 0.1, 0.1 - low)
    assert row["relative_size_error"] == pytest.approx(expected)
    zero = hand_made([0.0, 0.0], error=0.0, floor=0.0, before=Norm(50.0, 5.0), status="zero")
    assert measure(zero)["relative_size"] == 0


@pytest.mark.parametrize("before", [None, Norm(0.0, 0.0), Norm(1e-9, 1e-8)])
def test_what_changed_from_nothing_has_no_relative_size(before: Norm | None) -> None:
    row = measure(hand_made([1.0], error=0.0, floor=0.0, before=before))
    assert row["relative_size"] is None and row["relative_size_error"] is None


def test_norms_that_float64_does_not_hold_are_left_empty() -> None:
    row = measure(spectrum(1.5e308 * np.eye(3)))
    assert row["nuclear_norm"] is None and row["frobenius_norm"] is None
    assert row["effective_rank"] == pytest.approx(3) and row["per_error"] < 1e-6  # type: ignore[operator]
    assert row["spectral_norm"] == pytest.approx(1.5e308)
