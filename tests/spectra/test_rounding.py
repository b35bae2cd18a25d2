import numpy as np
import pytest

from rankscope.spectra.rounding import FORMATS, MARGIN, rounding_of


def ulp(values: np.ndarray, dtype: str) -> np.ndarray:
    """Spacing of a format at each value, from the definition."""
    exponent = np.frexp(values)[1] - 1
    mantissa, smallest = FORMATS[dtype]
    return np.ldexp(1.0, np.maximum(exponent, smallest) - mantissa)


@pytest.mark.parametrize(("dtype", "held"), [
    ("float64", np.float64), ("float32", np.float32), ("bfloat16", np.float32),
    ("float16", np.float16),
])  # fmt: skip
def test_variances_are_those_of_one_ulp(dtype: str, held: type, rng: np.random.Generator) -> None:
    a = (rng.normal(size=(7, 5)) * 10.0 ** rng.integers(-4, 4, (7, 1))).astype(held)
    variance = ulp(a.astype(np.float64), dtype) ** 2 / 12
    found = rounding_of(a, dtype)
    assert found.rows * found.unit**2 == pytest.approx(variance.sum(axis=1))
    assert found.columns * found.unit**2 == pytest.approx(variance.sum(axis=0))


@pytest.mark.parametrize("kind", ["gaussian", "heavy tails", "outlier rows", "low rank"])
@pytest.mark.parametrize("shape", [(96, 384), (128, 128)])
def test_the_floor_is_above_the_error_of_rounding(
    kind: str, shape: tuple[int, int], rng: np.random.Generator
) -> None:
    a = {
        "gaussian": lambda: rng.normal(size=shape),
        "heavy tails": lambda: rng.standard_t(2, size=shape),
        "outlier rows": lambda: (
            rng.normal(size=shape) * np.where(np.arange(shape[0]) < 3, 50, 1)[:, None]
        ),
        "low rank": lambda: rng.normal(size=(shape[0], 4)) @ rng.normal(size=(4, shape[1])),
    }[kind]()
    stored = a.astype(np.float32)
    error = np.linalg.norm(stored - a, 2)
    floor = rounding_of(stored, "float32").floor
    assert error <= floor <= 4 * MARGIN * error


def test_float64_at_the_ends_of_its_range_has_a_finite_floor() -> None:
    assert 0 < rounding_of(np.full((2, 2), 1e-300), "float64").floor < 1e-315
    assert np.isfinite(rounding_of(np.full((2, 2), 1e300), "float64").floor)


def test_roundings_add_up_as_variances(rng: np.random.Generator) -> None:
    one = rounding_of(rng.normal(size=(4, 6)), "float32")
    assert (one + one).floor == pytest.approx(np.sqrt(2) * one.floor)
    assert (one * 9).floor == pytest.approx(3 * one.floor)


@pytest.mark.parametrize("dtype", FORMATS)
def test_a_zero_matrix_was_rounded_to_multiples_of_the_smallest_number(dtype: str) -> None:
    """Also beside a matrix of numbers so small that their squares leave the range."""
    held = np.float64 if dtype == "float64" else np.float32
    mantissa, smallest = FORMATS[dtype]
    zero = rounding_of(np.zeros((4, 9), held), dtype)
    edge = np.ldexp(MARGIN * 5 / np.sqrt(12), smallest - mantissa)
    assert zero.floor == pytest.approx(edge, rel=1e-6, abs=4.95e-324)
    tiny = rounding_of(np.full((4, 9), np.ldexp(1.0, smallest + 2), held), dtype)
    assert (zero + tiny).floor == pytest.approx(np.sqrt(1 + 1 / 16) * tiny.floor, rel=0.1)
