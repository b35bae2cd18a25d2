"""When a series moves for good: planted moves are found and dated, fluctuations are not."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from rankscope.statistics.onset import lasting_moves

Values = NDArray[np.float64]


def move_of(*values: float, least: float = 0.01) -> tuple[int, int] | None:
    """The move of a series among others that hardly fluctuate."""
    others = [np.array([0.5, 0.5001, 0.5, 0.4999, 0.5, 0.5])] * 3
    move, *_ = lasting_moves([np.array(values), *others], least=[least] * 4)
    return None if move is None else (move.leaves, move.arrives)


def normal(rng: np.random.Generator, size: tuple[int, int]) -> Values:
    return rng.normal(size=size)


def heavy_tails(rng: np.random.Generator, size: tuple[int, int]) -> Values:
    return rng.standard_t(3, size=size)


@pytest.mark.parametrize(("draw", "most"), [(normal, 0.01), (heavy_tails, 0.1)])
@pytest.mark.parametrize(("series", "count"), [(4, 5), (28, 9), (14, 41)])
def test_of_families_that_only_fluctuate_few_show_a_move(
    draw: Callable[..., Values], most: float, series: int, count: int, rng: np.random.Generator
) -> None:
    families = [list(0.7 + 0.01 * draw(rng, (series, count))) for _ in range(60)]
    alarms = [any(lasting_moves(family, least=[0.0] * series)) for family in families]
    assert sum(alarms) <= 2 + 60 * most


def test_a_move_is_dated_by_the_steps_from_which_on_it_is_outside_and_inside_its_bands() -> None:
    assert move_of(0.806, 0.806, 0.548, *[0.301] * 5) == (2, 3)
    assert move_of(0.8, 0.8, 0.8, 0.3, 0.3, 0.3, 0.3) == (3, 3)
    assert move_of(1.0, 0.96, 0.9, 0.8, 0.7, 0.6, 0.5) == (2, 6)  # a tenth of it is in the band
    assert move_of(0.5, 0.51, 0.6, 0.7, 0.8, 0.805, 0.805) == (2, 4)
    assert move_of(0.804, 0.313, 0.315, 0.328, 0.341, 0.358) == (1, 2)  # it may recover a little


@pytest.mark.parametrize("sign", [1, -1])
def test_planted_moves_in_noise_are_found_and_dated(sign: int, rng: np.random.Generator) -> None:
    found = 0
    for _ in range(100):
        leaves, arrives = sorted(rng.integers(3, 18, size=2))
        shape = np.interp(np.arange(21), [leaves - 1, arrives], [0.8, 0.3])
        flat = list(0.6 + 0.01 * rng.normal(size=(3, 21)))
        series = sign * (shape + 0.01 * rng.normal(size=21))
        move, *others = lasting_moves([series, *flat], least=[0.01] * 4)
        assert move is not None and others == [None] * 3
        # What is within a tenth of either end is in a band.
        slack = 1 + (arrives - leaves + 1) / 5
        found += abs(move.leaves - leaves) <= slack and abs(move.arrives - arrives) <= slack
    assert found >= 95


@pytest.mark.parametrize(
    "values",
    [
        (0.8, 0.8, 0.3, 0.3, 0.8, 0.8),  # it returns
        (0.8, 0.8, 0.8, 0.8, 0.8, 0.3),  # nobody knows whether it stays
        (0.5,) * 6,
        (0.5,) * 3 + (0.505,) * 3,  # less than is worth a line
        (0.5, 0.9, 0.4, 0.8, 0.3, 0.7),
        (0.8, 0.3),
        (0.8,),
    ],
)
def test_what_does_not_last_or_matter_is_no_move(values: tuple[float, ...]) -> None:
    assert move_of(*values) is None


def test_a_move_within_the_error_of_its_values_is_none() -> None:
    falls = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4)
    assert move_of(*falls, least=0.3) is not None
    assert move_of(*falls, least=0.4) is None


def test_too_few_values_to_know_the_fluctuation_show_none() -> None:
    falls = np.array([0.8, 0.3, 0.3, 0.3, 0.3])
    assert lasting_moves([falls] * 3, least=[0.0] * 3) == [None] * 3
    assert all(lasting_moves([falls] * 4, least=[0.0] * 4))
    assert lasting_moves([], least=[]) == []
