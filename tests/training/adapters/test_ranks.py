from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rankscope import metrics
from rankscope.errors import RankscopeError
from rankscope.training.adapters import ranks
from rankscope.training.adapters.ranks import (
    adapter_parameters,
    allowed_rank,
    budget_ranks,
    next_ranks,
    saturation_rank,
    scheduled_rank,
)
from rankscope.training.config import ReLoRAConfig
from tests.training.adapters.prescribed import falling

MODULES = {"q": (16, 16), "k": (8, 16), "up": (40, 16), "down": (16, 40), "small": (3, 9)}

Spectra = dict[str, list[float]]


def decaying(bases: dict[str, float], shapes: dict[str, tuple[int, int]]) -> dict[str, Tensor]:
    """Normalised energies that fall by a factor; 1 is a flat spectrum."""
    found = {}
    for name, shape in shapes.items():
        values = torch.tensor(falling(min(shape), bases[name]), dtype=torch.float64)
        found[name] = values / values.sum()
    return found


@given(
    minimum=st.integers(1, 20),
    maximum=st.integers(1, 40),
    multiple=st.integers(1, 9),
    rank=st.integers(1, 60),
)
@settings(max_examples=150, deadline=None)
def test_an_allowed_rank_is_rounded_up_to_the_grid(
    minimum: int, maximum: int, multiple: int, rank: int
) -> None:
    grid = [r for r in range(minimum, maximum + 1) if r % multiple == 0] or [maximum]
    expected = next((r for r in grid if r >= rank), grid[-1])
    found = allowed_rank(rank, minimum=minimum, maximum=maximum, multiple=multiple)
    assert found == expected


budgets = given(
    bases=st.fixed_dictionaries({name: st.floats(0.05, 1.0) for name in MODULES}),
    rank=st.integers(1, 20),
    maximum=st.sampled_from([0, 5, 16]),
    multiple=st.sampled_from([1, 2, 4]),
)


@budgets
@settings(max_examples=60, deadline=None)
def test_a_budget_is_used_up_and_never_exceeded(
    bases: dict[str, float], rank: int, maximum: int, multiple: int
) -> None:
    if rank < multiple:
        rank = multiple
    energies = decaying(bases, MODULES)
    ranks = budget_ranks(
        energies, MODULES, rank=rank, minimum=1, maximum=maximum, multiple=multiple
    )
    budget = sum(min(rank, *shape) * sum(shape) for shape in MODULES.values())
    left = budget - adapter_parameters(ranks, MODULES)
    assert left >= 0
    for name, shape in MODULES.items():
        cap = min(maximum or min(shape), *shape)
        assert 1 <= ranks[name] <= cap
        assert ranks[name] % multiple == 0 or (ranks[name] == cap < multiple)
        if ranks[name] + multiple <= cap:
            assert multiple * sum(shape) > left, "a step that fits was not taken"


@budgets
@settings(max_examples=60, deadline=None)
def test_a_module_of_more_energy_gets_no_less(
    bases: dict[str, float], rank: int, maximum: int, multiple: int
) -> None:
    rank = max(rank, multiple)
    energies = decaying(bases, MODULES)
    for name in MODULES:
        before, after = (
            budget_ranks(
                energies | {name: factor * energies[name]},
                MODULES,
                rank=rank,
                minimum=1,
                maximum=maximum,
                multiple=multiple,
            )
            for factor in (1.0, 3.0)
        )
        assert after[name] >= before[name]


@pytest.mark.parametrize("base", [0.5, 1.0])
@pytest.mark.parametrize(("rank", "multiple"), [(1, 1), (5, 1), (6, 2), (8, 4)])
def test_equal_modules_get_the_uniform_rank(base: float, rank: int, multiple: int) -> None:
    shapes = {f"m{k}": (12, 20) for k in range(5)}
    energies = decaying(dict.fromkeys(shapes, base), shapes)
    ranks = budget_ranks(energies, shapes, rank=rank, minimum=1, maximum=0, multiple=multiple)
    assert ranks == dict.fromkeys(shapes, rank)


def test_a_flatter_spectrum_gets_the_higher_rank_for_the_same_total() -> None:
    shapes = {"flat": (16, 16), "steep": (16, 16)}
    energies = decaying({"flat": 0.95, "steep": 0.3}, shapes)
    ranks = budget_ranks(energies, shapes, rank=6, minimum=1, maximum=0, multiple=1)
    assert ranks["flat"] > 6 > ranks["steep"]
    assert sum(ranks.values()) == 12


def test_of_equal_spectra_the_cheaper_module_gets_the_higher_rank() -> None:
    shapes = {"cheap": (16, 16), "dear": (16, 64)}
    energies = decaying({"cheap": 0.8, "dear": 0.8}, shapes)
    ranks = budget_ranks(energies, shapes, rank=6, minimum=1, maximum=0, multiple=1)
    assert ranks["cheap"] > ranks["dear"]


def test_a_budget_does_not_depend_on_the_order_of_modules() -> None:
    energies = decaying(dict.fromkeys(MODULES, 0.9), MODULES)
    forth, back = (
        budget_ranks(
            energies,
            {name: MODULES[name] for name in names},
            rank=5,
            minimum=1,
            maximum=0,
            multiple=1,
        )
        for names in (list(MODULES), list(MODULES)[::-1])
    )
    assert forth == back


def test_a_budget_of_the_full_rank_gives_every_module_its_own() -> None:
    energies = decaying(dict.fromkeys(MODULES, 0.4), MODULES)
    ranks = budget_ranks(energies, MODULES, rank=99, minimum=1, maximum=0, multiple=1)
    assert ranks == {name: min(shape) for name, shape in MODULES.items()}


@pytest.mark.parametrize(("minimum", "multiple"), [(5, 1), (1, 8)])
def test_least_ranks_above_the_budget_are_refused(minimum: int, multiple: int) -> None:
    energies = decaying(dict.fromkeys(MODULES, 0.5), MODULES)
    with pytest.raises(RankscopeError, match=r"adapter\.rank = 4 does not pay for .*minimum_rank"):
        budget_ranks(energies, MODULES, rank=4, minimum=minimum, maximum=0, multiple=multiple)


def saturated(values: list[float], rank: int, **bounds: int) -> int:
    settings = {"minimum": 1, "maximum": 64, "multiple": 1} | bounds
    return saturation_rank(torch.tensor(values, dtype=torch.float64), rank, **settings)


@pytest.mark.parametrize("rank", [1, 2, 5, 8, 21])
def test_a_rank_that_is_used_up_grows_by_half(rank: int) -> None:
    assert saturated([2.0] * rank, rank) == math.ceil(1.5 * rank)


@pytest.mark.parametrize(("rank", "used"), [(8, 1), (8, 4), (16, 6), (40, 20)])
def test_a_rank_that_lies_idle_shrinks_to_what_holds_the_energy(rank: int, used: int) -> None:
    spectrum = [1.0] * used + [0.0] * (rank - used)
    assert saturated(spectrum, rank) == math.ceil(1.25 * math.ceil(0.9 * used))


def test_between_the_two_a_rank_stays() -> None:
    assert saturated([1.0] * 6 + [0.0] * 2, 8) == 8


def test_a_zero_delta_changes_no_rank() -> None:
    assert saturated([0.0] * 6, 6) == 6


@pytest.mark.parametrize("values", [[1.0] * 8, [1.0] + [0.0] * 7])
@pytest.mark.parametrize("factor", [1e-44, 1e30])
def test_the_size_of_a_delta_changes_nothing(values: list[float], factor: float) -> None:
    assert saturated([factor * v for v in values], 8) == saturated(values, 8)


@given(
    values=st.lists(st.floats(1e-4, 1.0), min_size=1, max_size=12),
    minimum=st.integers(1, 6),
    multiple=st.sampled_from([1, 2, 3]),
)
@settings(max_examples=60, deadline=None)
def test_saturation_stays_within_its_bounds(
    values: list[float], minimum: int, multiple: int
) -> None:
    values, rank = sorted(values, reverse=True), len(values)
    found = saturated(values, rank, minimum=minimum, maximum=14, multiple=multiple)
    assert minimum <= found <= 14
    assert found % multiple == 0
    start = allowed_rank(rank, minimum=minimum, maximum=14, multiple=multiple)
    if metrics.effective_rank(values) / rank <= 0.6:
        assert found <= start
    else:
        assert found >= start


def test_a_use_exactly_at_a_bound_counts_as_beyond_it(monkeypatch: pytest.MonkeyPatch) -> None:
    values, rank = [4.0, 2.0, 1.0, 0.5], 4
    used = metrics.effective_rank(values) / rank
    monkeypatch.setattr(ranks, "SATURATED", used)
    assert saturated(values, rank) == 6
    monkeypatch.setattr(ranks, "SATURATED", 1.0)
    monkeypatch.setattr(ranks, "IDLE", used)
    assert saturated(values, rank) == math.ceil(1.25 * 2)


@pytest.mark.parametrize(("start", "end"), [(1, 16), (16, 1), (4, 4)])
@pytest.mark.parametrize("cycles", [2, 3, 8])
def test_a_schedule_runs_straight_from_start_to_end(start: int, end: int, cycles: int) -> None:
    ranks = [scheduled_rank(k, cycles, start=start, end=end) for k in range(cycles)]
    assert (ranks[0], ranks[-1]) == (start, end)
    assert ranks == sorted(ranks, reverse=end < start)
    for k, rank in enumerate(ranks):
        assert abs(rank - start - (end - start) * k / (cycles - 1)) <= 0.5


def test_a_single_cycle_has_the_first_rank_of_a_schedule() -> None:
    assert scheduled_rank(0, 1, start=7, end=2) == 7


@pytest.fixture
def chosen() -> Callable[..., dict[str, int]]:
    def choose(
        relora: ReLoRAConfig,
        *,
        rank: int = 6,
        cycle: int = 0,
        deltas: dict[str, Tensor] | None = None,
    ) -> dict[str, int]:
        return next_ranks(
            relora,
            rank,
            MODULES,
            cycle=cycle,
            cycles=5,
            deltas=deltas or {},
            ranks=dict.fromkeys(deltas or {}, 3),
            energies=decaying(dict.fromkeys(MODULES, 0.7), MODULES),
        )

    return choose


Choose = Callable[..., dict[str, int]]


@pytest.mark.parametrize("cycle", [0, 3])
def test_the_fixed_policy_keeps_the_rank(chosen: Choose, cycle: int) -> None:
    assert chosen(ReLoRAConfig(), cycle=cycle) == dict.fromkeys(MODULES, 6)


@pytest.mark.parametrize("policy", ["saturation", "schedule"])
def test_the_first_cycle_has_the_base_rank_where_possible(chosen: Choose, policy: str) -> None:
    ranks = chosen(ReLoRAConfig(rank_policy=policy))
    assert ranks == dict.fromkeys(MODULES, 6) | {"small": 3}


def test_a_schedule_ends_at_the_final_rank(chosen: Choose) -> None:
    relora = ReLoRAConfig(rank_policy="schedule", final_rank=2)
    assert chosen(relora, cycle=4) == dict.fromkeys(MODULES, 2)


def test_saturation_decides_for_each_module_by_its_own_delta(chosen: Choose) -> None:
    full, idle = torch.ones(3), torch.tensor([1.0, 0.0, 0.0])
    deltas = dict.fromkeys(MODULES, full) | {"k": idle}
    ranks = chosen(ReLoRAConfig(rank_policy="saturation"), cycle=1, deltas=deltas)
    assert ranks == dict.fromkeys(MODULES, 5) | {"k": 2, "small": 3}


@pytest.mark.parametrize("cycle", [0, 2])
def test_the_budget_policy_has_the_parameters_of_the_uniform_rank(
    chosen: Choose, cycle: int
) -> None:
    ranks = chosen(ReLoRAConfig(rank_policy="budget"), cycle=cycle)
    uniform = {name: min(6, *shape) for name, shape in MODULES.items()}
    left = adapter_parameters(uniform, MODULES) - adapter_parameters(ranks, MODULES)
    assert 0 <= left < max(sum(shape) for shape in MODULES.values())


@pytest.mark.parametrize("policy", ["budget", "saturation", "schedule"])
def test_every_policy_that_changes_ranks_keeps_to_the_bounds(chosen: Choose, policy: str) -> None:
    relora = ReLoRAConfig(
        rank_policy=policy, minimum_rank=2, maximum_rank=7, rank_multiple=2, final_rank=1
    )
    deltas = {name: torch.ones(3) for name in MODULES}
    for cycle in range(5):
        ranks = chosen(relora, cycle=cycle, deltas=deltas if cycle else None)
        assert set(ranks) == set(MODULES)
        assert set(ranks.values()) <= {2, 4, 6}


@pytest.mark.parametrize("policy", ["budget", "saturation", "schedule"])
def test_a_choice_repeats_exactly(chosen: Choose, policy: str) -> None:
    relora = ReLoRAConfig(rank_policy=policy)
    assert chosen(relora) == chosen(relora)
