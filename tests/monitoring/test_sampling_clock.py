"""The law of the clock, on a clock whose time is counted by hand."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

from rankscope.monitoring.sampling_clock import SamplingClock


@dataclass
class Time:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def trained(
    share: float | None, costs: dict[tuple[str, ...], float], *, steps: int, every: int = 1
) -> tuple[SamplingClock, list[list[tuple[str, ...]]]]:
    """A training whose steps take a second each: which groups were taken in each round."""
    time = Time()
    clock = SamplingClock(share, every, time)
    rounds = []
    for step in range(steps):
        with clock.counting():
            if clock.is_due(step):
                rounds.append([])
                for key, cost in clock.turn(costs):
                    time.now += cost
                    rounds[-1].append(key)
        time.now += 1.0
    return clock, rounds


COSTS = {(name,): cost for name, cost in zip("abcde", (0.1, 0.2, 0.1, 0.4, 0.1), strict=True)}


def test_without_a_share_every_round_takes_all() -> None:
    _, rounds = trained(None, COSTS, steps=9, every=4)
    assert rounds == [list(COSTS)] * 3


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5])
def test_the_share_is_kept_once_the_advance_is_paid(share: float) -> None:
    clock, rounds = trained(share, COSTS, steps=1000)
    assert rounds[0] == list(COSTS)
    assert clock.spent <= share * clock.elapsed
    assert clock.spent >= 0.9 * share * clock.elapsed  # and used


def test_nothing_is_copied_before_the_advance_is_paid() -> None:
    _, rounds = trained(0.02, COSTS, steps=100)
    paid = sum(COSTS.values()) / 0.02
    assert not any(rounds[1 : int(paid)])


def test_all_are_taken_equally_often() -> None:
    _, rounds = trained(0.1, COSTS, steps=2000)
    taken = Counter(key for one in rounds for key in one)
    assert max(taken.values()) - min(taken.values()) <= 1
    assert len(taken) == len(COSTS)


def test_a_group_after_which_the_caller_stops_is_next() -> None:
    clock = SamplingClock(None, 1, Time())
    for key, _ in clock.turn(COSTS):
        if key == ("c",):
            break
    assert next(iter(clock.turn(COSTS)))[0] == ("c",)


def test_a_round_begins_at_the_first_call_at_multiples_and_when_it_goes_back() -> None:
    clock = SamplingClock(None, 10, Time())
    steps = (3, 4, 9, 10, 11, 25, 30, 12, 13, 20)
    assert [step for step in steps if clock.is_due(step)] == [3, 10, 25, 30, 12, 20]
