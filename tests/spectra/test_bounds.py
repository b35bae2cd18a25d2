"""Intervals that follow from the values and one bound hold all that the bound allows."""

from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankscope.spectra.bounds import UNIT_ROUNDOFF, Within, gram_bound
from rankscope.spectra.singular_values import spectrum

eigenvalues = st.lists(st.floats(-1e-12, 1), max_size=6).map(
    lambda others: np.sort(np.array([1.0, *others]))[::-1]
)


@settings(max_examples=200, deadline=None)
@given(eigenvalues, st.integers(1, 300), st.integers(-150, 150))
def test_intervals_by_the_gram_matrix_hold_every_square_within_its_bound(
    squares: np.ndarray, long_side: int, exponent: int
) -> None:
    """The interval of each eigenvalue is within that of its root, which is rounded."""
    squares = np.ldexp(squares, 2 * exponent)
    trace, largest, sides = abs(squares).sum(), squares[0], (long_side, len(squares))
    bound = gram_bound(trace, largest, long_side=sides[0], short_side=sides[1])
    of_eigenvalues = UNIT_ROUNDOFF * (sides[0] * trace + 8 * sides[1] * largest)
    values = np.sqrt(np.maximum(squares, 0))
    lower, upper = Within.of_squares(bound, float(values[0])).ends(values)
    with mpmath.workdps(60):
        for low, square, high in zip(lower, squares, upper, strict=True):
            least, most = (mpmath.mpf(square) + sign * of_eigenvalues for sign in (-1, 1))
            assert mpmath.mpf(low) ** 2 <= max(least, mpmath.mpf(0))
            assert mpmath.mpf(high) ** 2 >= most


@settings(max_examples=200, deadline=None)
@given(eigenvalues.map(np.abs).map(lambda s: np.sort(s)[::-1]), st.floats(1e-300, 1))
def test_intervals_of_an_absolute_bound_are_rounded_outward(s: np.ndarray, error: float) -> None:
    lower, upper = Within(error).ends(s)
    for low, value, high in zip(lower.tolist(), s.tolist(), upper.tolist(), strict=True):
        assert Fraction(low) <= max(Fraction(value) - Fraction(error), Fraction(0))
        assert Fraction(high) >= Fraction(value) + Fraction(error)


def test_a_bound_of_zero_leaves_the_values_as_they_are() -> None:
    s = np.array([3.0, 1.0, 0.0])
    lower, upper = Within(0.0).ends(s)
    assert (lower == s).all() and (upper == s).all()


@pytest.mark.parametrize("exponent", [-1074, -1060, -500, 500])
def test_only_subnormal_values_need_intervals_of_their_own(
    exponent: int, rng: np.random.Generator
) -> None:
    found = spectrum(rng.normal(size=(6, 9))).times_power_of_two(exponent)
    assert isinstance(found.bounds, Within) is (abs(exponent) == 500)
    assert (found.lower <= found.values).all() and (found.values <= found.upper).all()
