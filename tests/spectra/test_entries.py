from fractions import Fraction

import numpy as np
import pytest

from rankscope.spectra import entries
from rankscope.spectra.entries import sparsity


def gini(values: np.ndarray) -> float:
    """Half the mean absolute difference of all pairs over the mean (C. Gini, 1912), exactly."""
    x = [abs(Fraction(float(value))) for value in values.ravel()]
    return float(sum(abs(a - b) for a in x for b in x) / (2 * len(x) * sum(x)))


def hoyer(values: np.ndarray) -> float:
    """From numpy's norms."""
    x, root = values.ravel().astype(np.longdouble), np.sqrt(np.longdouble(values.size))
    return float((root - np.linalg.norm(x, 1) / np.sqrt((x**2).sum())) / (root - 1))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 2), (7, 1), (5, 6)])
@pytest.mark.parametrize("unit", [1.0, 2.0**-14])
def test_both_are_what_their_definitions_say(
    rng: np.random.Generator, dtype: str, shape: tuple[int, int], unit: float
) -> None:
    values = (rng.normal(size=shape) ** 3 * unit).astype(dtype)
    found = sparsity(values)
    assert found is not None and found.hoyer is not None
    assert found.gini == pytest.approx(gini(values), rel=1e-12)
    assert found.hoyer == pytest.approx(hoyer(values), rel=1e-12)


def test_blocks_do_not_matter(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    values = rng.normal(size=(9, 11))
    whole = sparsity(values)
    monkeypatch.setattr(entries, "BLOCK", 7)
    cut = sparsity(values)
    assert whole is not None and cut == pytest.approx(whole, rel=1e-13)


def test_equal_entries_have_none_and_a_single_one_all(rng: np.random.Generator) -> None:
    signs = rng.choice([-3.0, 3.0], size=(4, 5))
    assert sparsity(signs) == pytest.approx((0, 0), abs=1e-15)
    lone = np.zeros((4, 5))
    lone[2, 3] = -1e-300
    assert sparsity(lone) == pytest.approx((1 - 1 / 20, 1))


def test_scale_does_not_matter(rng: np.random.Generator) -> None:
    values = rng.normal(size=(6, 6))
    found = sparsity(values)
    for factor in (1e300, 1e-300):
        assert sparsity(values * factor) == pytest.approx(found, rel=1e-12)


def test_one_entry_has_no_hoyer() -> None:
    assert sparsity(np.array([[-2.0]])) == (0, None)


@pytest.mark.parametrize(
    "values", [np.zeros((3, 2)), np.ones((0, 4)), np.array([[1, np.nan]]), np.array([[np.inf, 1]])]
)
def test_without_an_entry_or_a_finite_one_there_is_no_number(values: np.ndarray) -> None:
    assert sparsity(values) is None


def test_a_number_is_given_only_where_forming_the_matrix_left_it_known(
    rng: np.random.Generator,
) -> None:
    values = rng.normal(size=(8, 8))
    found = sparsity(values)
    assert found is not None and found.hoyer is not None
    error = 1e-8 * np.linalg.norm(values)
    assert sparsity(values, float(error)) == found
    for _ in range(20):  # also against the gradients, which move both numbers most
        for push in (rng.normal(size=values.shape), np.sign(values), values**3):
            moved = sparsity(values + error * push / np.linalg.norm(push))
            assert moved is not None and moved.hoyer is not None
            assert abs(moved.gini - found.gini) < entries.KNOWN_TO
            assert abs(moved.hoyer - found.hoyer) < entries.KNOWN_TO
    assert sparsity(values, float(np.linalg.norm(values)) * 1e-6) is None
