"""Kronecker products: all products of the factors' singular values, exact and with intervals."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from rankscope.spectra.matrices import Dense, Kronecker, LowRank
from rankscope.spectra.rounding import Rounding
from rankscope.spectra.singular_values import singular_values, spectrum

Matrix = NDArray[np.float64]
Make = Callable[[ArrayLike, tuple[int, int]], Matrix]


def exact(values: Matrix) -> Dense:
    """A matrix without rounding of its own."""
    return Dense(values, "float32", Rounding(np.zeros(len(values)), np.zeros(values.shape[1])))


@pytest.mark.parametrize("shapes", [((4, 4), (6, 8)), ((1, 3), (5, 2)), ((7, 2), (2, 7))])
def test_the_values_are_those_of_the_product_multiplied_out(
    shapes: tuple[tuple[int, int], tuple[int, int]], rng: np.random.Generator
) -> None:
    first, second = (rng.normal(size=shape) for shape in shapes)
    found = spectrum(Kronecker(exact(first), exact(second)))
    truth = np.linalg.svd(np.kron(first, second), compute_uv=False)
    assert found.shape == np.kron(first, second).shape and found.status == "ok"
    assert found.max_rank == min(shapes[0]) * min(shapes[1])
    assert found.values == pytest.approx(truth[: found.max_rank], rel=1e-12)
    assert truth[found.max_rank :] == pytest.approx(0, abs=1e-12)


def test_intervals_hold_prescribed_values_and_the_floor_excludes_zeros(
    matrix_with: Make,
) -> None:
    s, t = np.array([3.0, 1.0, 1e-6, 0.0]), np.array([2.0, 1e-3, 0.0])
    matrix = Kronecker(exact(matrix_with(s, (6, 5))), exact(matrix_with(t, (4, 3))))
    found = spectrum(matrix)
    truth = np.sort(np.multiply.outer([*s, 0.0], t).ravel())[::-1]
    slack = 1e-14 * truth[0]  # of the matrices that were made to have them
    assert (found.lower <= truth + slack).all() and (truth - slack <= found.upper).all()
    above = found.lower > found.noise_floor
    assert (above == (truth > 0)).all() and found.noise_floor < 1e-12
    assert (found.values[truth == 0] <= found.noise_floor).all()
    assert (np.diff(found.values) <= 0).all()


def test_a_factor_may_be_a_product_itself(rng: np.random.Generator) -> None:
    left, right, second = (rng.normal(size=shape) for shape in ((5, 2), (2, 4), (3, 3)))
    matrix = Kronecker(LowRank(left, right), exact(second))
    truth = np.linalg.svd(np.kron(left @ right, second), compute_uv=False)
    assert singular_values(matrix) == pytest.approx(truth[:6], rel=1e-12)
    assert matrix.multiplied() == pytest.approx(np.kron(left @ right, second))


@pytest.mark.parametrize(
    ("value", "status"), [(0.0, "zero"), (np.nan, "nonfinite"), (1e200, "skipped:overflow")]
)
def test_a_factor_that_is_odd_makes_an_odd_product(value: float, status: str) -> None:
    factor = exact(np.full((3, 3), value))
    found = spectrum(Kronecker(factor, exact(np.full((2, 2), 1e200 if value > 1 else 1.0))))
    assert found.status == status and found.shape == (6, 6)
