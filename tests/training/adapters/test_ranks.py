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
    averaged,
    budget_ranks,
    core_singular_values,
    energy_rank,
    next_ranks,
    normalised_energies,
    saturation_rank,
    scheduled_rank,
)
from rankscope.training.config import ReLoRAConfig

SHAPES = [(8, 8), (12, 5), (5, 12), (1, 7), (30, 3)]
MODULES = {"q": (16, 16), "k": (8, 16), "up": (40, 16), "down": (16, 40), "small": (3, 9)}

Spectra = dict[str, list[float]]


def orthonormal(rows: int, columns: int, *, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    draw = torch.randn(rows, columns, dtype=torch.float64, generator=generator)
    return torch.linalg.qr(draw).Q


def matrix(shape: tuple[int, int], values: list[float], *, seed: int = 0) -> Tensor:
    """A matrix with the given singular values, and zeros for the rest."""
    k = len(values)
    left, right = (
        orthonormal(shape[0], k, seed=2 * seed),
        orthonormal(shape[1], k, seed=2 * seed + 1),
    )
    return left * torch.tensor(values, dtype=torch.float64) @ right.T


def falling(n: int, base: float) -> list[float]:
    return [base**k for k in range(n)]


def decaying(bases: dict[str, float], shapes: dict[str, tuple[int, int]]) -> dict[str, Tensor]:
    """Normalised energies that fall by a factor; 1 is a flat spectrum."""
    found = {}
    for name, shape in shapes.items():
        values = torch.tensor(falling(min(shape), bases[name]), dtype=torch.float64)
        found[name] = values / values.sum()
    return found


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rank", [1, 3, 9])
def test_the_core_has_the_singular_values_of_the_product(shape: tuple[int, int], rank: int) -> None:
    generator = torch.Generator().manual_seed(0)
    left = torch.randn(shape[0], rank, dtype=torch.float64, generator=generator)
    right = torch.randn(rank, shape[1], dtype=torch.float64, generator=generator)
    values = core_singular_values(left, right)
    expected = torch.linalg.svdvals(left @ right)[: len(values)]
    assert len(values) == min(*shape, rank)
    torch.testing.assert_close(values, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("rank", [1, 4])
def test_a_prescribed_spectrum_of_a_delta_is_found_to_float64(rank: int) -> None:
    wanted = torch.tensor(falling(rank, 1e-3), dtype=torch.float64)
    left, right = orthonormal(20, rank, seed=0) * wanted, orthonormal(11, rank, seed=1).T
    values = core_singular_values(left, right)
    torch.testing.assert_close(values, wanted, rtol=1e-5, atol=1e-15)


def test_a_new_adapter_has_a_delta_of_zero_singular_values() -> None:
    values = core_singular_values(torch.zeros(6, 2), torch.rand(2, 5))
    assert torch.equal(values, torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_factors_that_are_not_finite_are_refused(bad: float) -> None:
    left = torch.ones(4, 2)
    left[1, 1] = bad
    with pytest.raises(RankscopeError, match=r"lora_B of shape \(4, 2\) holds NaN or infinity"):
        core_singular_values(left, torch.ones(2, 5))


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8), st.floats(0.01, 1.0))
@settings(max_examples=50, deadline=None)
def test_energy_rank_is_the_least_that_keeps_the_share(values: list[float], share: float) -> None:
    spectrum = torch.tensor(sorted(values, reverse=True), dtype=torch.float64)
    k = energy_rank(spectrum, share)
    energy = spectrum.square()
    assert energy[:k].sum() >= share * energy.sum() * (1 - 1e-12)
    assert energy[: k - 1].sum() < share * energy.sum() * (1 + 1e-12)


def test_energy_rank_of_equal_values_is_their_share_rounded_up() -> None:
    assert [energy_rank(torch.ones(10), share) for share in (0.05, 0.1, 0.75, 1.0)] == [1, 1, 8, 10]


def test_the_energy_rank_of_zeros_is_zero() -> None:
    assert energy_rank(torch.zeros(4), 0.9) == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_energies_are_squared_singular_values_of_sum_one(shape: tuple[int, int]) -> None:
    values = falling(min(shape), 0.5)
    energy = torch.tensor(values, dtype=torch.float64).square()
    found = normalised_energies(matrix(shape, values))
    torch.testing.assert_close(found, energy / energy.sum())


@pytest.mark.parametrize("shape", SHAPES)
def test_a_zero_gradient_prefers_no_direction(shape: tuple[int, int]) -> None:
    n = min(shape)
    expected = torch.full((n,), 1 / n, dtype=torch.float64)
    assert torch.equal(normalised_energies(torch.zeros(shape)), expected)


@pytest.mark.parametrize("factor", [1e-44, 7.0, 1e30])
def test_energies_do_not_depend_on_the_size_of_a_gradient(factor: float) -> None:
    gradient = matrix((9, 6), falling(6, 0.6))
    torch.testing.assert_close(
        normalised_energies(factor * gradient), normalised_energies(gradient)
    )


def test_a_gradient_with_nan_is_refused() -> None:
    with pytest.raises(RankscopeError, match=r"a gradient of shape \(2, 3\) holds NaN"):
        normalised_energies(torch.full((2, 3), math.nan))


def test_averages_start_with_the_first_value_keep_the_sum_and_forget() -> None:
    first = normalised_energies(matrix((6, 6), falling(6, 0.9)))
    then = normalised_energies(matrix((6, 6), falling(6, 0.1)))
    average = averaged(None, first)
    assert torch.equal(average, first)
    for k in range(1, 20):
        average = averaged(average, then)
        assert average.sum() == pytest.approx(1)
        torch.testing.assert_close(average - then, 0.5**k * (first - then))
    assert torch.equal(averaged(first, then, weight=1.0), then)


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
