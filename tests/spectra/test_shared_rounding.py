"""The bias of the cosine of successive changes, against simulated changes that are independent."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from rankscope.spectra.formats import FORMATS
from rankscope.spectra.shared_rounding import shared_rounding

Matrix = NDArray[np.float64]
BITS = {"bfloat16": 8, "float16": 11, "float32": 24}


def rounded(values: Matrix, bits: int) -> Matrix:
    """To nearest in this many significant bits: scaled so that the last one is a whole number."""
    exponents = np.frexp(values)[1] - bits
    return np.asarray(np.ldexp(np.rint(np.ldexp(values, -exponents)), exponents))


def walk(
    rng: np.random.Generator, size: float, *, shape: tuple[int, int] = (400, 400)
) -> list[Matrix]:
    """Three states of a Gaussian weight, after independent Gaussian changes of a relative size."""
    states = [rng.normal(size=shape)]
    for _ in range(2):
        states.append(states[-1] + size * rng.normal(size=shape))
    return states


def cosine(states: list[Matrix]) -> tuple[float, float]:
    """Cosine of the two changes, and the product of their norms."""
    changes = np.diff(states, axis=0)
    norms = float(np.prod(np.linalg.norm(changes, axis=(1, 2))))
    return float((changes[0] * changes[1]).sum()) / norms, norms


# By the relative size of a change stored in bfloat16.
LEVELS = {0.03: -0.003, 0.01: -0.026, 0.003: -0.16, 0.001: -0.27, 0.0003: -0.29}


@pytest.mark.parametrize(("size", "level"), LEVELS.items())
def test_independent_changes_have_the_cosine_that_rounding_gives(
    rng: np.random.Generator, size: float, level: float
) -> None:
    """Simulated, estimated, and as documented; the noise of the simulation is 1/√160000."""
    states = [rounded(state, 8) for state in walk(rng, size)]
    found, norms = cosine(states)
    bias = shared_rounding(states[0], states[1], states[2], FORMATS["bfloat16"]) / norms
    assert bias == pytest.approx(found, abs=0.012)
    assert bias == pytest.approx(level, abs=0.01)


@pytest.mark.parametrize("dtype", BITS)
def test_changes_above_the_spacing_are_biased_by_the_energy_of_rounding(
    rng: np.random.Generator, dtype: str
) -> None:
    """−E‖e‖²: what rounding to the format did to the state between, as measured."""
    bits = BITS[dtype]
    exact = walk(rng, 64 * 2.0**-bits)
    states = [rounded(state, bits) for state in exact]
    error = states[1] - exact[1]
    found = shared_rounding(states[0], states[1], states[2], FORMATS[dtype])
    assert found == pytest.approx(-(error**2).sum(), rel=0.01)


def test_changes_below_the_spacing_are_biased_by_less_than_that_energy(
    rng: np.random.Generator,
) -> None:
    """Which would be a cosine of −2.5: an entry that does not move is not rounded anew."""
    states = [rounded(state, 8) for state in walk(rng, 0.0003)]
    found, norms = cosine(states)
    ulps = np.ldexp(1.0, np.frexp(states[1])[1] - 8)
    assert -(ulps**2).sum() / 12 / norms < -2
    assert -0.31 < found < -0.27


def test_what_stands_still_in_either_window_has_no_part(rng: np.random.Generator) -> None:
    before, shared, after = (rounded(state, 8) for state in walk(rng, 0.01, shape=(20, 20)))
    for states in ((shared, shared, after), (before, shared, shared)):
        assert shared_rounding(*states, FORMATS["bfloat16"]) == pytest.approx(0, abs=1e-18)


def test_a_state_that_is_missing_was_zero(rng: np.random.Generator) -> None:
    shared = rounded(rng.normal(size=(30, 20)), 8)
    zeros = np.zeros_like(shared)
    expected = shared_rounding(zeros, shared, zeros, FORMATS["bfloat16"])
    assert shared_rounding(None, shared, None, FORMATS["bfloat16"]) == expected < 0


@pytest.mark.parametrize("shape", [(300, 1), (1, 200)], ids=["by row", "by column"])
def test_a_factor_of_each_entry_enters(rng: np.random.Generator, shape: tuple[int, int]) -> None:
    """As where an error of B is multiplied by A."""
    exact = walk(rng, 1.0, shape=(300, 200))
    states = [rounded(state, 8) for state in exact]
    weights = rng.uniform(0, 2, size=shape)
    found = shared_rounding(*states, FORMATS["bfloat16"], weights)
    assert found == pytest.approx(-(weights * (states[1] - exact[1]) ** 2).sum(), rel=0.02)


def test_below_the_smallest_normal_number_the_spacing_is_constant(rng: np.random.Generator) -> None:
    """Of float16: multiples of 2⁻²⁴."""
    exact = [2.0**-18 * rng.normal(size=(200, 200)) for _ in range(3)]
    states = [state.astype(np.float16).astype(np.float32) for state in exact]
    found = shared_rounding(*states, FORMATS["float16"])
    assert found == pytest.approx(-(200**2) * 2.0**-48 / 12, rel=1e-6)


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng, shape: rng.laplace(size=shape) / 2**0.5,
        lambda rng, shape: rng.standard_t(4, size=shape) / 2**0.5,
    ],
    ids=["laplace", "student"],
)
def test_heavier_tails_are_off_by_a_fifth_at_most(
    rng: np.random.Generator, draw: Callable[[np.random.Generator, tuple[int, int]], Matrix]
) -> None:
    for size in (0.01, 0.003, 0.001):
        states = [rng.normal(size=(400, 400))]
        for _ in range(2):
            states.append(states[-1] + size * draw(rng, (400, 400)))
        states = [rounded(state, 8) for state in states]
        found, norms = cosine(states)
        bias = shared_rounding(states[0], states[1], states[2], FORMATS["bfloat16"]) / norms
        assert bias == pytest.approx(found, abs=0.01 - 0.2 * found)
