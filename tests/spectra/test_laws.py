"""Laws that hold for every matrix, whatever its spectrum."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from rankscope.metrics import effective_rank
from rankscope.spectra.matrices import Dense, LowRank
from rankscope.spectra.rounding import rounding_of
from rankscope.spectra.singular_values import spectra, spectrum
from rankscope.spectra.spectrum import Spectrum
from tests.spectra.reference import Exact, is_inside

Matrix = NDArray[np.float64]
STATUS = ("ok", "zero", "vector", "empty", "nonfinite", "skipped:overflow")

shapes = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=7)
any_float = st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True)
finite = st.floats(-1e6, 1e6, allow_subnormal=False)
matrices = arrays(np.float64, shapes, elements=finite)
seeds = st.integers(0, 2**32 - 1)


def graded(seed: int, m: int, n: int, decades: float) -> Matrix:
    """A random matrix whose singular values span this many decades."""
    rng = np.random.default_rng(seed)
    q = min(m, n)
    left, right = (np.linalg.qr(rng.normal(size=(side, q)))[0] for side in (m, n))
    return np.asarray(left * np.logspace(0, -decades, q) @ right.T)


def overlap(one: Spectrum, other: Spectrum, *, slack: float = 0.0) -> bool:
    """Whether two spectra can be of matrices whose distance is at most ``slack``."""
    k = min(one.max_rank, other.max_rank)
    first = one.lower[:k] <= other.upper[:k] + slack
    second = other.lower[:k] <= one.upper[:k] + slack
    rest = [(x.lower[k:] <= slack).all() for x in (one, other)]
    return bool(first.all() and second.all() and all(rest))


def is_nested(found: Spectrum) -> bool:
    """0 ≤ lower ≤ value ≤ upper, each of the three descending."""
    ordered = (found.lower >= 0) & (found.lower <= found.values) & (found.values <= found.upper)
    three = np.stack([found.lower, found.values, found.upper])
    return bool(ordered.all() and (three[:, 1:] <= three[:, :-1]).all())


@settings(max_examples=150, deadline=None)
@example(np.array([[1.79769313e308]]))  # whose upper end leaves float64
@given(arrays(np.float64, array_shapes(min_dims=2, max_dims=2, min_side=0), elements=any_float))
@pytest.mark.slow
def test_every_array_has_a_status_and_nested_intervals(a: Matrix) -> None:
    found = spectrum(a)
    assert found.status in STATUS
    assert is_nested(found)
    assert (found.status == "nonfinite") == (not np.isfinite(a).all())


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([np.float16, np.float32]).flatmap(
        lambda dtype: arrays(dtype, shapes, elements=st.floats(width=16))
    )
)
def test_every_half_and_single_precision_array_too(a: NDArray[np.floating]) -> None:
    found = spectrum(a)
    assert found.status in STATUS and is_nested(found)


@example(  # a product so much smaller than its factors that its squares underflow
    np.array([[[0.0, 2.12980984e14], [0.0, 0.0], [0.0, 0.0]]]),
    np.array([[6.76217e271, *[7.73086707e95] * 5], [7.73086707e95] * 6]),
)
@settings(max_examples=100, deadline=None)
@given(
    arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 6), st.just(2)),
           elements=any_float),
    arrays(np.float64, st.tuples(st.just(2), st.integers(1, 6)), elements=any_float),
)  # fmt: skip
def test_every_stack_of_products_has_a_status_and_nested_intervals(
    left: Matrix, right: Matrix
) -> None:
    for found in spectra(LowRank(left, np.stack([right] * len(left)))):
        assert found.status in STATUS and is_nested(found)


@settings(max_examples=60, deadline=None)
@given(arrays(np.float64, shapes, elements=st.floats(-1e300, 1e300, allow_subnormal=True)))
def test_the_intervals_contain_the_truth_over_the_whole_range(a: Matrix) -> None:
    found = spectrum(a)
    assert all(map(is_inside, found.lower, Exact.of(a).singular_values(), found.upper))


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 9), st.integers(1, 9), st.floats(0, 17))
def test_the_intervals_contain_the_truth_of_graded_matrices(
    seed: int, m: int, n: int, decades: float
) -> None:
    a = graded(seed, m, n, decades)
    found = spectrum(a)
    assert all(map(is_inside, found.lower, Exact.of(a).singular_values(), found.upper))


@settings(max_examples=60, deadline=None)
@given(matrices, st.integers(-900, 900))
def test_a_power_of_two_scales_everything_exactly(a: Matrix, exponent: int) -> None:
    if not a.any() or np.abs(a[a != 0]).min() < 1e-20:
        a = a + 1  # scaled entries stay normal
    # As float64, which alone holds all of them: the range of narrower formats ends sooner.
    one, other = (
        spectrum(Dense(x, "float64", rounding_of(x, "float64"))) for x in (a, np.ldexp(a, exponent))
    )
    assert (one.route, one.status) == (other.route, other.status)
    for x, y in zip(
        (one.values, one.upper, one.noise_floor), (other.values, other.upper, other.noise_floor),
        strict=True,
    ):  # fmt: skip
        scaled = np.ldexp(x, exponent)
        is_normal = scaled > 1e-290
        assert (np.where(is_normal, scaled, 0) == np.where(is_normal, y, 0)).all()


@settings(max_examples=60, deadline=None)
@given(matrices)
def test_the_transpose_has_the_same_singular_values(a: Matrix) -> None:
    assert overlap(spectrum(a), spectrum(a.T))


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(2, 12), st.integers(2, 12), st.floats(0, 15))
def test_a_rotation_leaves_the_singular_values(seed: int, m: int, n: int, decades: float) -> None:
    a = graded(seed, m, n, decades)
    q, _ = np.linalg.qr(np.random.default_rng(seed + 1).normal(size=(m, m)))
    assert overlap(spectrum(a), spectrum(q @ a), slack=20 * m * 2.0**-53)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(2, 8), st.integers(2, 8), st.integers(0, 3), st.integers(0, 3))
def test_rows_and_columns_of_zeros_leave_the_effective_rank(
    seed: int, m: int, n: int, rows: int, columns: int
) -> None:
    a = graded(seed, m, n, 3)
    one, other = spectrum(a), spectrum(np.pad(a, ((0, rows), (0, columns))))
    assert overlap(one, other)
    assert effective_rank(other.values) == pytest.approx(effective_rank(one.values), rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(2, 9), st.integers(2, 9), st.floats(0, 12), st.floats(-16, 0))
def test_a_perturbation_moves_no_value_by_more_than_its_norm(
    seed: int, m: int, n: int, decades: float, size: float
) -> None:
    a, e = graded(seed, m, n, decades), graded(seed + 1, m, n, 1) * 10.0**size
    moved = np.linalg.norm((a + e) - a, 2)
    assert overlap(spectrum(a), spectrum(a + e), slack=moved * (1 + 1e-12) + 1e-18)


@settings(max_examples=80, deadline=None)
@given(seeds, st.integers(2, 9), st.integers(2, 9), st.integers(1, 12), st.floats(0, 10))
def test_a_product_and_its_dense_form_agree_within_both_errors(
    seed: int, m: int, n: int, inner: int, decades: float
) -> None:
    rng = np.random.default_rng(seed)
    left = rng.normal(size=(m, inner)) * np.logspace(0, -decades, inner)
    product = LowRank(left, rng.normal(size=(inner, n)))
    rounding = 2 * inner * 2.0**-53 * np.linalg.norm(left) * np.linalg.norm(product.right)
    assert overlap(spectrum(product), spectrum(product.multiplied()), slack=float(rounding))


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(2, 8), st.integers(1, 12), st.floats(-15, 0))
def test_the_intervals_of_a_sum_that_cancels_contain_the_truth(
    seed: int, n: int, inner: int, size: float
) -> None:
    rng = np.random.default_rng(seed)
    left, right = rng.normal(size=(9, inner)), rng.normal(size=(inner, n))
    other = 10.0**size * rng.normal(size=(9, inner)) - left
    product = LowRank(np.hstack([left, other]), np.vstack([right, right]))
    true = (Exact.of(product.left) @ Exact.of(product.right)).singular_values()
    found = spectrum(product)
    assert all(map(is_inside, found.lower, true, found.upper))


def test_a_long_sum_that_always_rounds_down_stays_in_its_interval() -> None:
    left = np.full((8, 1000), 0.99 * 2.0**-26.5)  # each product just below half an ulp of 1
    left[:, 0] = 1
    found = spectrum(LowRank(left, left.T.copy()))
    true = (Exact.of(left) @ Exact.of(left.T)).singular_values()
    assert all(map(is_inside, found.lower, true, found.upper))


@pytest.mark.parametrize("power", [-33, -32, -29])
@pytest.mark.parametrize(
    ("u", "v", "signs"),
    [((-4, 1), (175, 315), ((-2, 8), (4, 2))), ((-2, -12), (112, -164), ((-8, 16), (8, 24))),
     ((62, 36), (6, -23), ((48, 16), (48, -16)))],
)  # fmt: skip
def test_two_by_two_matrices_near_rank_one_stay_in_their_intervals(
    u: tuple[int, int], v: tuple[int, int], signs: tuple[tuple[int, int], ...], power: int
) -> None:
    a = np.outer(u, v) + np.ldexp(np.array(signs, np.float64), power)
    found = spectrum(a)
    assert all(map(is_inside, found.lower, Exact.of(a).singular_values(), found.upper))


@pytest.mark.parametrize("shape", [(2, 2), (3, 2), (5, 5), (6, 5), (12, 12), (20, 9)])
@pytest.mark.slow
def test_small_matrices_of_close_columns_stay_in_their_intervals(shape: tuple[int, int]) -> None:
    for seed in range(25):
        rng = np.random.default_rng(seed)
        rank_one = rng.normal(size=(shape[0], 1)) @ rng.normal(size=(1, shape[1]))
        a = rank_one + 1e-9 * rng.normal(size=shape)
        found = spectrum(a)
        assert all(map(is_inside, found.lower, Exact.of(a).singular_values(), found.upper))
