from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from rankscope.errors import RankscopeError
from rankscope.keyed import keyed_generator
from rankscope.metrics import effective_rank
from rankscope.training.adapters.cycles import Cycles
from rankscope.training.adapters.lora_linear import (
    LoRALinear,
    iter_adapters,
    target_shapes,
    trained_parameters,
)
from rankscope.training.adapters.published import PublishedLinear
from rankscope.training.config import Config
from rankscope.training.model import LanguageModel
from rankscope.training.probe import effective_gradients

VOCABULARY, RANK = 31, 2
MakeConfig = Callable[..., Config]
Gradients = dict[str, Tensor]
BUDGET = {"relora.rank_policy": "budget", "adapter.rank_stabilised": True}


@pytest.fixture
def model(make_config: MakeConfig) -> LanguageModel:
    return new_model(make_config())


def new_model(config: Config) -> LanguageModel:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return LanguageModel(config.model, VOCABULARY)


@pytest.fixture
def gradients(model: LanguageModel, tokens: Tensor) -> Gradients:
    return effective_gradients(model, iter([tokens]))


def begin(
    cycles: Cycles,
    model: LanguageModel,
    gradients: Gradients,
    *,
    cycle: int = 0,
    merged: Mapping[str, Tensor] | None = None,
    agree: Callable[[object], object] = lambda value: value,
) -> None:
    cycles.begin(model, None, gradients, cycle=cycle, cycles=5, merged=merged or {}, agree=agree)


def a_of(model: LanguageModel) -> dict[str, Tensor]:
    return {name: layer.lora_A.detach().clone() for name, layer in iter_adapters(model)}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def give_deltas(model: LanguageModel, rank: int) -> None:
    """Give every delta ``rank`` equal singular values and no others."""
    with torch.no_grad():
        for _, layer in iter_adapters(model):
            layer.lora_A.copy_(torch.eye(*layer.lora_A.shape))
            layer.lora_B.copy_(torch.eye(*layer.lora_B.shape))
            layer.lora_B[:, rank:] = 0


def test_every_target_gets_an_adapter_of_rank_and_scale_as_configured(
    make_config: MakeConfig, model: LanguageModel, gradients: Gradients
) -> None:
    config = make_config({"adapter.target_modules": ["v_proj", "up_proj"]})
    cycles = Cycles(config)
    begin(cycles, model, gradients)
    adapters = dict(iter_adapters(model))
    assert adapters.keys() == cycles.starts.keys()
    assert {name.rpartition(".")[2] for name in adapters} == {"v_proj", "up_proj"}
    assert all(type(layer) is LoRALinear for layer in adapters.values())
    assert all(layer.rank == RANK for layer in adapters.values())
    assert all(layer.scale == config.adapter.scale(RANK) for layer in adapters.values())


def test_a_run_with_published_behaviour_has_published_layers(
    make_config: MakeConfig, model: LanguageModel, gradients: Gradients
) -> None:
    begin(Cycles(make_config({"relora.published.dropout": 0.1})), model, gradients)
    assert all(type(layer) is PublishedLinear for _, layer in iter_adapters(model))


def test_the_function_is_what_it_was(
    make_config: MakeConfig, model: LanguageModel, gradients: Gradients, tokens: Tensor
) -> None:
    before = model(tokens)
    cycles = Cycles(make_config(BUDGET | {"relora.a_init": "mix"}))
    begin(cycles, model, gradients)
    assert torch.equal(model(tokens), before)
    give_deltas(model, 1)
    before = model(tokens)
    begin(cycles, model, gradients, cycle=1, merged=cycles.end(model))
    assert (model(tokens) - before).norm() / before.norm() < 1e-5


def test_a_random_a_is_uniform_within_the_bound_of_its_width(
    make_config: MakeConfig, model: LanguageModel, gradients: Gradients
) -> None:
    begin(Cycles(make_config({"adapter.rank": 8})), model, gradients)
    for a in a_of(model).values():
        bound = 1 / math.sqrt(a.shape[1])
        assert 0.8 * bound < a.abs().max() <= bound


def test_the_same_configuration_gives_the_same_adapters_to_the_bit(
    make_config: MakeConfig, gradients: Gradients
) -> None:
    for a_init in ("random", "orthogonal", "grad_top", "grad_sample", "mix"):
        config, drawn = make_config(BUDGET | {"relora.a_init": a_init}), []
        for disturbance in (0, 7):
            model, cycles = new_model(config), Cycles(config)
            torch.rand(disturbance)  # others may use the global generator
            begin(cycles, model, gradients)
            begin(cycles, model, gradients, cycle=1, merged=cycles.end(model))
            drawn.append((a_of(model), cycles.starts))
        assert same(drawn[0][0], drawn[1][0])
        assert drawn[0][1] == drawn[1][1]


def test_adapters_differ_between_layers_cycles_and_seeds(
    make_config: MakeConfig, model: LanguageModel, gradients: Gradients
) -> None:
    rows = []
    for seed, cycle in ((1, 0), (1, 1), (2, 0)):
        begin(Cycles(make_config({"seed": seed})), model, gradients, cycle=cycle)
        rows += [tuple(a[0, :8].tolist()) for a in a_of(model).values()]
    assert len(set(rows)) == len(rows) == 3 * 14


def test_only_the_number_of_a_cycle_decides_on_its_adapters(
    make_config: MakeConfig, gradients: Gradients
) -> None:
    config = make_config()
    resumed, through = new_model(config), new_model(config)
    for cycle in range(3):
        begin(Cycles(config), through, gradients, cycle=cycle)
    begin(Cycles(config), resumed, gradients, cycle=2)
    assert same(a_of(resumed), a_of(through))


def test_what_the_processes_agree_on_is_what_the_layers_get(
    make_config: MakeConfig, model: LanguageModel, gradients: Gradients
) -> None:
    cycles = Cycles(make_config())
    other = {
        name: torch.full((3, columns), 0.5)
        for name, (_, columns) in target_shapes_of(model).items()
    }
    begin(cycles, model, gradients, agree=lambda _: other)
    assert same(a_of(model), other)
    assert {begun["rank"] for begun in cycles.starts.values()} == {3}
    assert all(x.scale == cycles.config.adapter.scale(3) for _, x in iter_adapters(model))


def target_shapes_of(model: LanguageModel) -> dict[str, tuple[int, int]]:
    return target_shapes(model, ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj"))


def test_the_processes_are_asked_once_with_every_adapter(
    make_config: MakeConfig, model: LanguageModel, gradients: Gradients
) -> None:
    asked: list[Any] = []
    begin(
        Cycles(make_config()),
        model,
        gradients,
        agree=lambda v: asked.append(v) or v,  # type: ignore[func-returns-value]
    )
    assert len(asked) == 1
    assert same(asked[0], a_of(model))


def test_a_rank_that_a_matrix_cannot_have_is_refused(
    make_config: MakeConfig, model: LanguageModel, gradients: Gradients
) -> None:
    with pytest.raises(RankscopeError, match=r"adapter\.rank = 9 exceeds .* 8 x 16"):
        begin(Cycles(make_config({"adapter.rank": 9})), model, gradients)
    assert not list(iter_adapters(model))


def test_the_optimizer_forgets_the_old_adapters_and_trains_the_new(
    make_config: MakeConfig, model: LanguageModel, gradients: Gradients, tokens: Tensor
) -> None:
    cycles = Cycles(
        make_config({"relora.rank_policy": "schedule", "adapter.rank_stabilised": True})
    )
    optimizer = torch.optim.AdamW(model.parameters())
    for cycle in range(2):
        cycles.begin(
            model, optimizer, gradients, cycle=cycle, cycles=2, merged={}, agree=lambda v: v
        )
        trained = optimizer.param_groups[0]["params"]
        assert list(map(id, trained)) == list(map(id, trained_parameters(model)))
        for _, layer in iter_adapters(model):
            assert layer.lora_A not in optimizer.state
        model.loss(tokens).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()


def test_ending_merges_and_returns_the_singular_values_of_each_delta(
    make_config: MakeConfig, model: LanguageModel, gradients: Gradients
) -> None:
    cycles = Cycles(make_config())
    begin(cycles, model, gradients)
    expected, weights = {}, {}
    for name, layer in iter_adapters(model):
        torch.nn.init.normal_(layer.lora_B, generator=keyed_generator(3, name))
        expected[name] = torch.linalg.svdvals(layer.delta())[:RANK].detach()
        weights[name] = (layer.weight.double() + layer.delta()).float()
    merged = cycles.end(model)
    for name, layer in iter_adapters(model):
        torch.testing.assert_close(merged[name], expected[name])
        assert torch.equal(layer.weight, weights[name])


def test_ending_without_adapters_returns_nothing(
    make_config: MakeConfig, model: LanguageModel
) -> None:
    assert Cycles(make_config()).end(model) == {}


def test_the_top_of_the_gradient_is_captured_in_full(
    make_config: MakeConfig, model: LanguageModel, gradients: Gradients
) -> None:
    cycles = Cycles(make_config({"relora.a_init": "grad_top"}))
    begin(cycles, model, gradients)
    for name, begun in cycles.starts.items():
        energy = torch.linalg.svdvals(gradients[f"{name}.weight"].double()).square()
        best = float(energy[:RANK].sum() / energy.sum())
        assert begun["captured_energy"] == pytest.approx(best, rel=1e-5)


@pytest.mark.parametrize("a_init", ["random", "orthogonal", "grad_sample", "mix"])
def test_no_subspace_captures_more_than_the_top(
    make_config: MakeConfig, model: LanguageModel, gradients: Gradients, a_init: str
) -> None:
    captured = {}
    for kind in ("grad_top", a_init):
        cycles = Cycles(make_config({"relora.a_init": kind}))
        begin(cycles, model, gradients)
        captured[kind] = {name: begun["captured_energy"] for name, begun in cycles.starts.items()}
    for name, best in captured["grad_top"].items():
        assert 0 <= captured[a_init][name] <= best + 1e-6


def test_the_overlap_is_with_the_previous_cycle(
    make_config: MakeConfig, model: LanguageModel, gradients: Gradients
) -> None:
    cycles = Cycles(make_config({"relora.a_init": "grad_top"}))
    begin(cycles, model, gradients)
    assert all("overlap" not in begun for begun in cycles.starts.values())
    begin(cycles, model, gradients, cycle=1)
    assert all(begun["overlap"] == pytest.approx(1) for begun in cycles.starts.values())
    begin(Cycles(make_config({"relora.a_init": "orthogonal"})), model, gradients, cycle=2)
    begin(cycles, model, gradients, cycle=3)
    assert all(begun["overlap"] < 0.9 for begun in cycles.starts.values())


def test_two_planes_that_share_an_axis_overlap_by_half(
    make_config: MakeConfig, model: LanguageModel, gradients: Gradients
) -> None:
    cycles = Cycles(make_config({"relora.a_init": "grad_top"}))
    for cycle, axes in enumerate(([0, 1], [1, 2])):
        planes = {}
        for name, gradient in gradients.items():
            planes[name] = torch.zeros_like(gradient)
            planes[name][[0, 1], axes] = torch.tensor([2.0, 1.0])
        begin(cycles, model, planes, cycle=cycle)
    assert all(start["overlap"] == pytest.approx(0.5) for start in cycles.starts.values())


def test_zero_factors_capture_nothing_and_overlap_with_nothing(
    make_config: MakeConfig, model: LanguageModel, gradients: Gradients
) -> None:
    cycles = Cycles(make_config({"relora.published.zero_factors": True}))
    begin(cycles, model, gradients)
    assert not any(a.any() for a in a_of(model).values())
    assert {begun["captured_energy"] for begun in cycles.starts.values()} == {0.0}
    begin(cycles, model, gradients, cycle=1, merged=cycles.end(model))
    assert all(a.any() for a in a_of(model).values())
    assert {begun["overlap"] for begun in cycles.starts.values()} == {0.0}


def test_a_budget_goes_to_the_layers_whose_gradient_needs_it(
    make_config: MakeConfig, model: LanguageModel, gradients: Gradients
) -> None:
    flat, narrow = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"
    gradients = gradients | {
        f"{flat}.weight": torch.eye(16),
        f"{narrow}.weight": torch.diag(torch.tensor([1.0] + [0.0] * 15)),
    }
    cycles = Cycles(make_config(BUDGET | {"adapter.rank": 4}))
    begin(cycles, model, gradients)
    adapters = dict(iter_adapters(model))
    assert all(adapters[name].rank == begun["rank"] for name, begun in cycles.starts.items())
    assert adapters[narrow].rank == 1
    assert adapters[flat].rank > 1
    sides = {name: sum(layer.weight.shape) for name, layer in adapters.items()}
    spent = sum(layer.rank * sides[name] for name, layer in adapters.items())
    assert spent <= 4 * sum(sides.values()) < spent + min(sides.values())
    assert all(x.scale == 3.0 / math.sqrt(x.rank) for x in adapters.values())  # alpha is 3


def test_a_schedule_of_ranks_reaches_the_layers(
    make_config: MakeConfig, model: LanguageModel, gradients: Gradients
) -> None:
    settings = {"relora.rank_policy": "schedule", "adapter.rank_stabilised": True}
    cycles = Cycles(make_config(settings | {"adapter.rank": 8, "relora.final_rank": 4}))
    for cycle in range(5):
        begin(cycles, model, gradients, cycle=cycle)
        assert {layer.rank for _, layer in iter_adapters(model)} == {8 - cycle}


@pytest.mark.parametrize(("used", "grows"), [(4, True), (1, False)])
def test_a_saturated_adapter_grows_and_an_idle_one_shrinks(
    make_config: MakeConfig, model: LanguageModel, gradients: Gradients, used: int, grows: bool
) -> None:
    settings = {"relora.rank_policy": "saturation", "adapter.rank_stabilised": True}
    cycles = Cycles(make_config(settings | {"adapter.rank": 4}))
    begin(cycles, model, gradients)
    assert {layer.rank for _, layer in iter_adapters(model)} == {4}
    give_deltas(model, used)
    begin(cycles, model, gradients, cycle=1, merged=cycles.end(model))
    assert all((x.rank > 4) == grows and (x.rank < 4) != grows for _, x in iter_adapters(model))


def test_the_budget_remembers_the_energies_of_earlier_cycles(
    make_config: MakeConfig, model: LanguageModel, gradients: Gradients
) -> None:
    cycles = Cycles(make_config(BUDGET))
    reversed_signs_and_scales = {name: -3 * g for name, g in gradients.items()}
    begin(cycles, model, gradients)
    first = dict(cycles.energies)
    for name, energy in first.items():
        s2 = torch.linalg.svdvals(gradients[f"{name}.weight"].double()).square()
        torch.testing.assert_close(energy, s2 / s2.sum())
    begin(cycles, model, reversed_signs_and_scales, cycle=1)
    for name, energy in cycles.energies.items():
        torch.testing.assert_close(energy, first[name])
    begin(cycles, model, {name: torch.zeros_like(g) for name, g in gradients.items()}, cycle=2)
    for name, energy in cycles.energies.items():
        torch.testing.assert_close(energy, (first[name] + 1 / len(energy)) / 2)


def test_with_the_same_energies_another_goes_on_alike(
    make_config: MakeConfig, gradients: Gradients
) -> None:
    config = make_config(BUDGET)
    through = Cycles(config)
    model = new_model(config)
    begin(through, model, gradients)
    resumed = Cycles(config, energies=dict(through.energies))
    twin = new_model(config)
    later = {name: g.flip(0) + g for name, g in gradients.items()}
    begin(through, model, later, cycle=1)
    begin(resumed, twin, later, cycle=1)
    assert same(a_of(model), a_of(twin))
    assert same(through.energies, resumed.energies)


def test_policies_without_memory_keep_none(
    make_config: MakeConfig, model: LanguageModel, gradients: Gradients
) -> None:
    cycles = Cycles(make_config())
    begin(cycles, model, gradients)
    assert cycles.energies == {}


def test_the_summary_is_the_mean_over_the_adapters(
    make_config: MakeConfig, model: LanguageModel, gradients: Gradients
) -> None:
    cycles = Cycles(make_config(BUDGET | {"adapter.rank": 4, "relora.a_init": "grad_top"}))
    assert cycles.summary({}) == {}
    begin(cycles, model, gradients)
    first = cycles.summary({})
    assert first.keys() == {"rank", "captured_energy", "rank_min", "rank_max"}
    give_deltas(model, 1)
    used = {name: layer.rank for name, layer in iter_adapters(model)}
    merged = cycles.end(model)
    begin(cycles, model, gradients, cycle=1, merged=merged)
    summary, begun, n = cycles.summary(merged), cycles.starts.values(), len(used)
    for key in ("rank", "captured_energy", "overlap"):
        assert summary[key] == pytest.approx(sum(values[key] for values in begun) / n)
    assert summary["rank_min"] == min(values["rank"] for values in begun)
    assert summary["rank_max"] == max(values["rank"] for values in begun)
    assert summary["merged_effective_rank"] == pytest.approx(1)
    assert summary["merged_rank_utilisation"] == pytest.approx(
        sum(1 / r for r in used.values()) / n
    )


def test_an_idle_adapter_counts_with_rank_zero(
    make_config: MakeConfig,
) -> None:
    cycles = Cycles(make_config())
    merged = {"one": torch.zeros(2), "other": torch.tensor([1.0, 1.0])}
    assert effective_rank(merged["other"].numpy()) == pytest.approx(2)
    summary = cycles.summary(merged)
    assert summary["merged_effective_rank"] == pytest.approx(1)
    assert summary["merged_rank_utilisation"] == pytest.approx(0.5)
