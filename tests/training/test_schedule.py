from __future__ import annotations

import math
from typing import Any

import pytest

from rankscope.training.config import ScheduleConfig
from rankscope.training.schedule import (
    is_restart,
    learning_rate,
    learning_rate_multiplier,
    restarts_before,
)


def schedule(**settings: Any) -> ScheduleConfig:
    return ScheduleConfig(**{"steps": 40, "warmup_steps": 4, "restart_warmup_steps": 3, **settings})


def test_the_multiplier_is_exact_around_every_boundary() -> None:
    s = schedule(restart_every=10, minimum_ratio=0.1)
    cosine = [0.1 + 0.45 * (1 + math.cos(math.pi * max(0, t - 4) / 36)) for t in range(40)]
    expected = {
        0: 1 / 4,
        1: 2 / 4,
        3: 1.0,
        4: 1.0,  # the cosine begins
        5: cosine[5],
        9: cosine[9],
        10: cosine[10] / 3,  # restart: the first update of a cycle is already a step
        11: cosine[11] * 2 / 3,
        12: cosine[12],
        13: cosine[13],
        19: cosine[19],
        20: cosine[20] / 3,
        39: cosine[39],
    }
    for step, multiplier in expected.items():
        assert learning_rate_multiplier(step, s) == pytest.approx(multiplier, rel=1e-12), step


@pytest.mark.parametrize("restart_every", [0, 1, 3, 7, 10, 39, 40, 1000])
@pytest.mark.parametrize("warmup_steps", [0, 1, 4, 39])
def test_no_step_has_a_learning_rate_of_zero(restart_every: int, warmup_steps: int) -> None:
    s = schedule(restart_every=restart_every, warmup_steps=warmup_steps)
    assert all(0 < learning_rate_multiplier(t, s) <= 1 for t in range(s.steps))


def test_the_learning_rate_is_a_part_of_its_peak() -> None:
    s = schedule(learning_rate=0.5)
    assert learning_rate(0, s) == 0.125
    assert max(learning_rate(t, s) for t in range(40)) == 0.5


@pytest.mark.parametrize(
    ("restart_every", "restarts"),
    [
        (0, []),
        (10, [10, 20, 30]),  # none at 40: no update would follow
        (15, [15, 30]),  # the last cycle is shorter
        (39, [39]),
        (40, []),
        (41, []),
        (1, list(range(1, 40))),
    ],
)
def test_restarts_come_at_multiples_of_the_cycle_before_the_end(
    restart_every: int, restarts: list[int]
) -> None:
    s = schedule(restart_every=restart_every)
    assert [t for t in range(41) if is_restart(t, s)] == restarts


@pytest.mark.parametrize("restart_every", [0, 1, 7, 10, 40, 41])
def test_restarts_before_a_step_counts_the_restarts(restart_every: int) -> None:
    s = schedule(restart_every=restart_every)
    for step in range(41):
        assert restarts_before(step, s) == sum(is_restart(t, s) for t in range(step))


def test_a_restart_ramp_begins_with_the_restart_and_lasts_as_long_as_it_says() -> None:
    s, plain = schedule(restart_every=10), schedule(restart_every=0)
    lowered = [
        t for t in range(40) if learning_rate_multiplier(t, s) < learning_rate_multiplier(t, plain)
    ]
    assert lowered == [10, 11, 20, 21, 30, 31]


def test_a_restart_inside_the_warmup_is_ramped_by_both() -> None:
    s = schedule(restart_every=2, warmup_steps=8)
    assert learning_rate_multiplier(2, s) == pytest.approx(3 / 8 * 1 / 3)
