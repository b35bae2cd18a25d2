from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from rankscope.training.config import Config, PhasesConfig, ScheduleConfig
from rankscope.training.config.adapter_settings import PublishedConfig, ReLoRAConfig
from rankscope.training.schedule import Timeline, learning_rate_multiplier, timeline

STEPS, WARMUP, RAMP = 40, 4, 3


def run(
    methods: Sequence[str],
    lengths: Sequence[int] = (),
    rates: Sequence[float] = (),
    *,
    published: bool = False,
    first_phase_end: int | None = None,
    **settings: Any,
) -> Timeline:
    """A run of these methods one after another; one method alone is a run without phases."""
    schedule = {
        "steps": STEPS,
        "warmup_steps": WARMUP,
        "restart_warmup_steps": RAMP,
        "learning_rate": 0.5,
        "restart_every": 10 if "relora" in methods else 0,
    }
    config = Config(
        method="phases" if len(methods) > 1 else methods[0],
        schedule=ScheduleConfig(**(schedule | settings)),
        relora=ReLoRAConfig(published=PublishedConfig(zero_rate_step=published)),
        phases=PhasesConfig(
            methods=tuple(methods) if len(methods) > 1 else (),
            lengths=tuple(lengths),
            rates=tuple(rates),
        ),
    )
    return timeline(config, first_phase_end=first_phase_end)


def cosine(step: int, *, low: float = 0.1, end: int = STEPS) -> float:
    progress = max(0, step - WARMUP) / (end - WARMUP)
    return low + (1 - low) / 2 * (1 + math.cos(math.pi * progress))


def multipliers(plan: Timeline) -> list[float]:
    return [learning_rate_multiplier(step, plan) for step in range(plan.schedule.steps)]


def boundary_steps(plan: Timeline) -> list[int]:
    return [boundary.step for boundary in plan.boundaries]


KINDS: dict[str, tuple[Timeline, list[int]]] = {
    "full rank": (run(["full"]), []),
    "LoRA": (run(["lora"]), []),
    "ReLoRA": (run(["relora"]), [10, 20, 30]),
    "last cycle shorter": (run(["relora"], restart_every=15), [15, 30]),
    "one update in the last cycle": (run(["relora"], restart_every=39), [39]),
    "a cycle as long as the run": (run(["relora"], restart_every=40), []),
    "a cycle longer than the run": (run(["relora"], restart_every=41), []),
    "a restart before every update": (run(["relora"], restart_every=1), list(range(1, 40))),
    "warm start": (run(["full", "relora"], [13]), [13, 23, 33]),
    "warm start that ended early": (
        run(["full", "relora"], [13], first_phase_end=7),
        [7, 17, 27, 37],
    ),
    "warm start inside the warm-up": (run(["full", "relora"], [2]), [2, 12, 22, 32]),
    "finish": (run(["relora", "full"], [25]), [10, 20, 25]),
    "finish at the end of a cycle": (run(["relora", "full"], [20]), [10, 20]),
    "sandwich": (run(["full", "relora", "full"], [6, 24]), [6, 16, 26, 30]),
    "sandwich that ended its first phase early": (
        run(["full", "relora", "full"], [6, 24], first_phase_end=3),
        [3, 13, 23, 27],
    ),
    "LoRA, then ReLoRA": (run(["lora", "relora"], [12]), [12, 22, 32]),
    "ReLoRA twice": (run(["relora", "relora"], [14]), [10, 14, 24, 34]),
}
kinds = pytest.mark.parametrize(("plan", "steps"), KINDS.values(), ids=KINDS)
plans = pytest.mark.parametrize("plan", [plan for plan, _ in KINDS.values()], ids=KINDS)


@kinds
def test_boundaries_are_the_phases_starts_and_the_restarts_counted_from_them(
    plan: Timeline, steps: list[int]
) -> None:
    assert boundary_steps(plan) == steps


@kinds
def test_the_multiplier_is_warm_up_times_ramp_times_decay(plan: Timeline, steps: list[int]) -> None:
    for step, multiplier in enumerate(multipliers(plan)):
        expected = min(1, (step + 1) / WARMUP) * cosine(step)
        past = [boundary for boundary in steps if boundary <= step]
        if past:
            expected *= min(1, (step - past[-1] + 1) / RAMP)
        assert multiplier == pytest.approx(expected, rel=1e-12), step


def test_the_multiplier_is_exact_around_every_boundary_of_a_relora_run() -> None:
    table = multipliers(run(["relora"]))
    expected = {
        0: 1 / 4,
        1: 2 / 4,
        3: 1.0,
        4: 1.0,  # the cosine begins
        5: cosine(5),
        9: cosine(9),
        10: cosine(10) / 3,  # restart: the first update of a cycle is already a step
        11: cosine(11) * 2 / 3,
        12: cosine(12),
        19: cosine(19),
        20: cosine(20) / 3,
        39: cosine(39),
    }
    assert {step: table[step] for step in expected} == pytest.approx(expected, rel=1e-12)


def test_the_multiplier_is_exact_around_every_boundary_of_a_sandwich() -> None:
    table = multipliers(run(["full", "relora", "full"], [6, 24]))
    expected = {
        5: cosine(5),
        6: cosine(6) / 3,  # the weights are frozen
        7: cosine(7) * 2 / 3,
        8: cosine(8),
        15: cosine(15),
        16: cosine(16) / 3,
        26: cosine(26) / 3,
        29: cosine(29),
        30: cosine(30) / 3,  # the weights are trained again
        32: cosine(32),
    }
    assert {step: table[step] for step in expected} == pytest.approx(expected, rel=1e-12)


def test_the_warm_up_and_a_ramp_inside_it_multiply() -> None:
    table = multipliers(run(["relora"], restart_every=2, warmup_steps=8))
    assert table[2] == pytest.approx(3 / 8 * 1 / 3)


def test_a_ramp_longer_than_a_cycle_begins_again_with_each() -> None:
    table = multipliers(run(["relora"], restart_every=5, restart_warmup_steps=100))
    assert table[14] == pytest.approx(cosine(14) * 5 / 100)
    assert table[15] == pytest.approx(cosine(15) * 1 / 100)


@plans
def test_no_step_has_a_learning_rate_of_zero(plan: Timeline) -> None:
    assert all(0 < multiplier <= 1 for multiplier in multipliers(plan))


@pytest.mark.parametrize("restart_every", [1, 3, 7, 39, 40, 1000])
@pytest.mark.parametrize("warmup_steps", [0, 1, 39])
@pytest.mark.parametrize("restart_warmup_steps", [0, 1, 50])
@pytest.mark.parametrize("decay", ["cosine", "linear", "constant"])
def test_no_step_has_a_learning_rate_of_zero_whatever_the_lengths(
    restart_every: int, warmup_steps: int, restart_warmup_steps: int, decay: str
) -> None:
    plan = run(
        ["relora"],
        restart_every=restart_every,
        warmup_steps=warmup_steps,
        restart_warmup_steps=restart_warmup_steps,
        decay=decay,
        minimum_ratio=0.0,
    )
    assert all(0 < multiplier <= 1 for multiplier in multipliers(plan))


def test_the_learning_rate_is_the_multiplier_of_its_peak() -> None:
    plan = run(["relora"])
    rates = [plan.learning_rate(step) for step in range(STEPS)]
    assert rates == pytest.approx([0.5 * multiplier for multiplier in multipliers(plan)])
    assert max(rates) == 0.5


def test_the_rate_of_a_phase_multiplies_its_learning_rate_alone() -> None:
    plan = run(["full", "relora", "full"], [6, 24], rates=[1.0, 2.0, 0.5])
    plain = run(["full", "relora", "full"], [6, 24])
    for step in range(STEPS):
        factor = 1.0 if step < 6 else 2.0 if step < 30 else 0.5
        assert plan.learning_rate(step) == pytest.approx(factor * plain.learning_rate(step))


def test_the_rate_of_a_phase_moves_with_its_early_start() -> None:
    plan = run(["full", "relora"], [13], rates=[1.0, 2.0], first_phase_end=7)
    assert [plan.phase(step).rate for step in (6, 7)] == [1.0, 2.0]


@plans
def test_every_step_has_the_phase_that_began_last(plan: Timeline) -> None:
    for step in range(STEPS):
        phase = plan.phase(step)
        later = [other for other in plan.phases if phase.start < other.start <= step]
        assert phase.start <= step
        assert not later


@plans
def test_a_boundary_says_what_ends_and_what_begins(plan: Timeline) -> None:
    for step in range(1, STEPS):
        before, after = plan.phase(step - 1), plan.phase(step)
        boundary = plan.boundary(step)
        if before is not after:
            assert boundary is not None
            assert (boundary.before, boundary.after, boundary.event) == (before, after, "phase")
        elif boundary is not None:
            assert (boundary.before, boundary.after, boundary.event) == (before, before, "restart")
            assert before.method == "relora"


@plans
def test_adapters_that_end_are_merged_and_no_others(plan: Timeline) -> None:
    for boundary in plan.boundaries:
        assert boundary.merges == (boundary.before.method in ("relora", "lora"))


@plans
def test_nothing_ends_before_the_first_update_or_after_the_last(plan: Timeline) -> None:
    assert plan.boundary(0) is None
    assert plan.boundary(STEPS) is None


@plans
def test_counts_before_a_step_agree_with_a_count_over_all_steps(plan: Timeline) -> None:
    merges, cycles, last = 0, 0, None
    for step in range(STEPS + 1):
        assert plan.merges_before(step) == merges
        assert plan.cycles_before(step) == cycles
        boundary = plan.boundary(step)
        if boundary is not None:
            merges += boundary.before.has_adapters
            cycles += boundary.after.has_adapters
            last = step
        if step == 0:
            cycles += plan.phases[0].has_adapters
        assert plan.last_boundary(step) == last


@plans
def test_every_cycle_but_one_that_is_still_trained_has_been_merged(plan: Timeline) -> None:
    for step in range(1, STEPS + 1):
        unmerged = plan.cycles_before(step) - plan.merges_before(step)
        assert unmerged == plan.phase(step - 1).has_adapters


@pytest.mark.parametrize(
    ("decay", "half", "end"),
    [("cosine", 0.6, 0.2), ("linear", 0.6, 0.2), ("constant", 1.0, 1.0)],
)
def test_a_decay_falls_from_one_to_the_minimum_at_the_horizon(
    decay: str, half: float, end: float
) -> None:
    plan = run(["full"], decay=decay, minimum_ratio=0.2, horizon=44)
    values = [learning_rate_multiplier(step, plan) for step in (WARMUP, 24, 44, 60)]
    assert values == pytest.approx([1.0, half, end, end])


def test_without_a_horizon_the_decay_ends_with_the_run() -> None:
    for decay in ("cosine", "linear"):
        plan = run(["full"], decay=decay)
        assert learning_rate_multiplier(STEPS, plan) == pytest.approx(0.1)
        assert multipliers(plan) == multipliers(run(["full"], decay=decay, horizon=STEPS))


def test_a_longer_horizon_is_the_schedule_of_a_longer_run() -> None:
    short, long = run(["relora"], horizon=90), run(["relora"], steps=90)
    assert multipliers(short) == multipliers(long)[:STEPS]


def test_the_linear_decay_goes_down_in_equal_steps() -> None:
    table = multipliers(run(["full"], decay="linear", minimum_ratio=0.0))[WARMUP:]
    steps = [before - after for before, after in pairwise(table)]
    assert steps == pytest.approx([1 / 36] * 35)


PUBLISHED: dict[str, dict[str, Any]] = {
    "the paper's proportions": {"restart_every": 10, "warmup_steps": 10, "horizon": 400},
    "a shorter warm-up": {"restart_every": 10, "warmup_steps": 4},
    "no warm-up": {"restart_every": 10, "warmup_steps": 0},
    "a ramp of one step": {"restart_every": 8, "restart_warmup_steps": 1},
    "no ramp": {"restart_every": 8, "restart_warmup_steps": 0},
    "a ramp as long as a cycle": {"restart_every": 4, "restart_warmup_steps": 4},
    "a cycle of two steps": {"restart_every": 2, "restart_warmup_steps": 2, "warmup_steps": 1},
    "a cycle longer than the run": {"restart_every": 50},
}


@pytest.mark.parametrize("settings", PUBLISHED.values(), ids=PUBLISHED)
def test_with_a_zero_rate_step_the_multiplier_is_the_published_formula(
    settings: dict[str, Any],
) -> None:
    plan = run(["relora"], published=True, **settings)
    schedule = plan.schedule
    w, f, p = schedule.warmup_steps, schedule.restart_every, schedule.restart_warmup_steps
    m, end = schedule.minimum_ratio, schedule.horizon or schedule.steps

    def c(u: int) -> float:
        return m + (1 - m) / 2 * (1 + math.cos(math.pi * (u - w) / (end - w)))

    for t in range(STEPS):
        if t < w:
            expected = t / w
        elif t >= f and t % f < p:
            expected = (t % f) / p * c(math.floor(t / f) * f + p)
        else:
            expected = c(t)
        assert plan.learning_rate(t) / 0.5 == pytest.approx(expected, rel=1e-12), t


def test_a_published_restart_comes_right_after_an_update_of_rate_zero() -> None:
    plan = run(["relora"], published=True)
    assert boundary_steps(plan) == [11, 21, 31]
    rates = [plan.learning_rate(step) for step in range(STEPS)]
    assert [step for step, rate in enumerate(rates) if rate == 0] == [0, 10, 20, 30]


PUBLISHED_PHASES = {
    "warm start": (["full", "relora"], [13], {0, 13, 23, 33}),
    "finish": (["relora", "full"], [25], {0, 10, 20, 25}),
    "sandwich": (["full", "relora", "full"], [6, 24], {0, 6, 16, 26, 30}),
}


@pytest.mark.parametrize(
    ("methods", "lengths", "zero"), PUBLISHED_PHASES.values(), ids=PUBLISHED_PHASES
)
def test_with_phases_the_published_cycles_count_from_their_starts(
    methods: list[str], lengths: list[int], zero: set[int]
) -> None:
    plan = run(methods, lengths, published=True)
    assert {step for step in range(STEPS) if plan.learning_rate(step) == 0} == zero
    starts = {phase.start for phase in plan.phases}
    for boundary in plan.boundaries:
        assert boundary.step in starts or boundary.step - 1 in zero
    ramps = [plan.learning_rate(step) / 0.5 for step in range(STEPS)]
    for step in zero - {0}:
        assert ramps[step + 1] == pytest.approx(cosine(step + RAMP) / RAMP)
        assert ramps[step + RAMP] == pytest.approx(cosine(step + RAMP))


def test_the_last_published_restart_has_an_update_after_it() -> None:
    assert boundary_steps(run(["relora"], published=True, restart_every=13)) == [14, 27]
    assert boundary_steps(run(["relora"], published=True, restart_every=39)) == []


def test_without_restarts_the_published_first_update_has_rate_zero() -> None:
    plan = run(["lora"], published=True)
    assert [step for step in range(STEPS) if plan.learning_rate(step) == 0] == [0]
