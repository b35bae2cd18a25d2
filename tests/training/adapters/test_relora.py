from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rankscope.errors import RankscopeError
from rankscope.keyed import keyed_generator
from rankscope.training.adapters.lora_linear import (
    LoRALinear,
    iter_adapters,
    renew,
    require_ranks,
    target_shapes,
    trained_parameters,
    unwrap,
    wrap,
)
from rankscope.training.adapters.subspaces import new_a
from rankscope.training.config import PROJECTIONS
from rankscope.training.model import LanguageModel

VOCABULARY, RANK, SCALE, LR = 31, 2, 1.5, 1e-2
MakeModel = Callable[[], LanguageModel]


@pytest.fixture
def make_model(make_config: Callable[..., Any]) -> MakeModel:
    """Make the same model each time, without adapters."""

    def make() -> LanguageModel:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            return LanguageModel(make_config().model, VOCABULARY)

    return make


def drawn(shape: tuple[int, int], rank: int, *key: str | int) -> Tensor:
    return new_a("random", shape, rank, generator=keyed_generator(3, *key))


def begin(
    model: nn.Module,
    cycle: int,
    *,
    rank: int = RANK,
    modules: tuple[str, ...] = PROJECTIONS,
    make: Callable[..., LoRALinear] = lambda weight, a, scale: LoRALinear(weight, a, scale=scale),
) -> None:
    """Give every target a new adapter."""
    for name, shape in target_shapes(model, modules).items():
        wrap(model, name, drawn(shape, rank, cycle, name), scale=SCALE, make=make)


def restart(
    model: nn.Module, optimizer: torch.optim.Optimizer, cycle: int, *, rank: int = RANK
) -> None:
    for _, layer in iter_adapters(model):
        layer.merge()
    begin(model, cycle, rank=rank)
    renew(optimizer, model)


def adamw(model: nn.Module) -> torch.optim.AdamW:
    trained = trained_parameters(model)
    return torch.optim.AdamW(trained, lr=LR, betas=(0.9, 0.95), weight_decay=0.0, fused=True)


def learn(
    model: LanguageModel, optimizer: torch.optim.Optimizer, tokens: Tensor, *, steps: int
) -> None:
    for _ in range(steps):
        model.loss(tokens).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()


def trained_layer(
    shape: tuple[int, int], rank: int, scale: float, dtype: torch.dtype, kind: type = LoRALinear
) -> LoRALinear:
    weight = torch.empty(shape, dtype=dtype).normal_(generator=keyed_generator(3, "W"))
    layer: LoRALinear = kind(nn.Parameter(weight), drawn(shape, rank, "A"), scale=scale)
    nn.init.normal_(layer.lora_B, std=0.5, generator=keyed_generator(3, "B"))
    return layer


def change_of_function_by_a_restart(layer: LoRALinear) -> float:
    """Relative; the new A is that of the next cycle."""
    columns = layer.weight.shape[1]
    x = torch.empty(11, columns, dtype=layer.weight.dtype).normal_(generator=keyed_generator(3))
    before = layer(x)
    layer.merge()
    layer.reset(drawn((layer.weight.shape[0], columns), layer.rank, "next A"), scale=layer.scale)
    return float(((layer(x) - before).norm() / before.norm()).detach())


def norm(gradient: Tensor | None) -> float:
    return 0.0 if gradient is None else gradient.norm().item()


def cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.cosine_similarity(a.detach().flatten(), b.detach().flatten(), dim=0))


def iter_others(model: nn.Module) -> Iterator[nn.Parameter]:
    """Embedding, norms and head."""
    for name, parameter in model.named_parameters():
        if ".lora_" not in name and "_proj." not in name:
            yield parameter


def iter_factors(model: nn.Module) -> Iterator[nn.Parameter]:
    for _, layer in iter_adapters(model):
        yield from (layer.lora_A, layer.lora_B)


def values_and_state(
    parameters: Iterator[nn.Parameter], optimizer: torch.optim.Optimizer
) -> list[tuple[Tensor, dict[str, Tensor]]]:
    return copy.deepcopy([(p.data, dict(optimizer.state[p])) for p in parameters])


def bits_equal(
    parameters: Iterator[nn.Parameter],
    optimizer: torch.optim.Optimizer,
    before: list[tuple[Tensor, dict[str, Tensor]]],
) -> bool:
    """Whether the parameters and their optimizer state are what they were."""
    return all(
        torch.equal(p, value)
        and optimizer.state[p].keys() == state.keys()
        and all(torch.equal(optimizer.state[p][key], state[key]) for key in state)
        for p, (value, state) in zip(parameters, before, strict=True)
    )


def test_wrapping_leaves_the_function_exactly_as_it_was(
    make_model: MakeModel, tokens: Tensor
) -> None:
    model = make_model()
    before = model(tokens)
    begin(model, 0)
    assert torch.equal(model(tokens), before)


def test_all_seven_projections_of_every_layer_are_wrapped_and_nothing_else(
    make_model: MakeModel,
) -> None:
    model = make_model()
    begin(model, 0)
    assert len(list(iter_adapters(model))) == 2 * 7
    left = [name for name, layer in model.named_modules() if type(layer) is nn.Linear]
    assert left == ["lm_head"]


def test_only_the_named_projections_are_targets(make_model: MakeModel) -> None:
    model = make_model()
    begin(model, 0, modules=("q_proj", "down_proj"))
    wrapped = {name.rpartition(".")[2] for name, _ in iter_adapters(model)}
    assert wrapped == {"q_proj", "down_proj"}


def test_targets_are_the_same_with_and_without_adapters(make_model: MakeModel) -> None:
    model = make_model()
    plain = target_shapes(model, PROJECTIONS)
    begin(model, 0)
    assert target_shapes(model, PROJECTIONS) == plain
    assert plain["model.layers.1.mlp.down_proj"] == (16, 24)


def test_a_rank_above_the_smaller_side_is_refused() -> None:
    require_ranks({"k_proj": 8}, {"k_proj": (8, 16)})
    with pytest.raises(RankscopeError, match=r"adapter\.rank = 9 exceeds .*k_proj.* 8 x 16"):
        require_ranks({"k_proj": 9}, {"k_proj": (8, 16)})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_adapter_has_the_type_of_its_weight(dtype: torch.dtype) -> None:
    model = nn.Sequential()
    model.add_module("q_proj", nn.Linear(6, 5, bias=False, dtype=dtype))
    begin(model, 0)
    (_, layer) = next(iter_adapters(model))
    assert layer.lora_A.dtype == layer.lora_B.dtype == layer.weight.dtype == dtype


def test_a_layer_is_made_by_what_is_given_for_it(make_model: MakeModel) -> None:
    class Special(LoRALinear):
        pass

    model = make_model()
    begin(model, 0, make=lambda weight, a, scale: Special(weight, a, scale=scale))
    assert all(type(layer) is Special for _, layer in iter_adapters(model))


def test_b_learns_from_the_first_step_and_a_from_the_second(
    make_model: MakeModel, tokens: Tensor
) -> None:
    model = make_model()
    begin(model, 0)
    optimizer = adamw(model)
    gradients = []
    for _ in range(2):
        model.loss(tokens).backward()  # type: ignore[no-untyped-call]
        gradients.append(
            [(norm(x.lora_A.grad), norm(x.lora_B.grad)) for _, x in iter_adapters(model)]
        )
        optimizer.step()
        optimizer.zero_grad()
    assert all(a == 0 and b > 0 for a, b in gradients[0])
    assert all(a > 0 and b > 0 for a, b in gradients[1])


@pytest.mark.parametrize("scale", [0.25, 1.0, 2.0, 3 / math.sqrt(2)])
@pytest.mark.parametrize("shape", [(8, 8), (5, 17), (17, 5), (1, 3), (3, 1), (96, 40)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_a_restart_leaves_the_function_of_a_layer_unchanged(
    scale: float, shape: tuple[int, int], dtype: torch.dtype, tolerance: float
) -> None:
    layer = trained_layer(shape, min(4, *shape), scale, dtype)
    assert change_of_function_by_a_restart(layer) < tolerance
    assert (layer.lora_B == 0).all()


@pytest.mark.parametrize("scale", [0.25, 2.0])
def test_a_merge_that_forgets_the_scale_does_change_the_function(scale: float) -> None:
    class Forgetful(LoRALinear):
        def delta(self) -> Tensor:
            return self.lora_B.double() @ self.lora_A.double()

    layer = trained_layer((9, 7), 3, scale, torch.float64, Forgetful)
    assert change_of_function_by_a_restart(layer) > 1e-2


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_a_restart_leaves_the_function_of_the_model_unchanged(
    make_model: MakeModel, tokens: Tensor, dtype: torch.dtype, tolerance: float
) -> None:
    model = make_model().to(dtype)
    begin(model, 0)
    optimizer = adamw(model)
    learn(model, optimizer, tokens, steps=5)
    before = model(tokens)
    restart(model, optimizer, 1)
    assert (model(tokens) - before).norm() / before.norm() < tolerance


def test_the_delta_is_what_the_forward_pass_adds() -> None:
    layer = trained_layer((9, 7), 3, 2.0, torch.float64)
    x = torch.empty(11, 7, dtype=torch.float64).normal_(generator=keyed_generator(3))
    torch.testing.assert_close(layer(x), x @ (layer.weight + layer.delta()).T)


def test_a_merge_rounds_once() -> None:
    layer = trained_layer((9, 7), 3, 2.0, torch.float32)
    expected = (layer.weight.double() + layer.delta()).float()
    layer.merge()
    assert torch.equal(layer.weight, expected)


def test_a_merge_leaves_the_adapter_as_it_is() -> None:
    layer = trained_layer((9, 7), 3, 2.0, torch.float32)
    before = layer.lora_A.clone(), layer.lora_B.clone()
    layer.merge()
    assert torch.equal(layer.lora_A, before[0])
    assert torch.equal(layer.lora_B, before[1])


@pytest.mark.parametrize("size", [1e-1, 1e-3, 1e-5])
def test_small_updates_survive_many_merges(size: float) -> None:
    layer = trained_layer((64, 48), 4, 2.0, torch.float32)
    first = layer.weight.double().clone()
    total = torch.zeros_like(first)
    for k in range(20):
        layer.reset(drawn((64, 48), 4, "A", k), scale=2.0)
        nn.init.normal_(layer.lora_B, generator=keyed_generator(0, "B", k))
        layer.lora_B.data *= size * layer.weight.norm() / layer.delta().norm()
        total += layer.delta()
        layer.merge()
    error = (layer.weight.double() - first - total).norm() / total.norm()
    assert error < 1e-7 / size  # a rounding of W a merge; in bfloat16 it would be 1e-2 / size


@pytest.mark.parametrize(("shape", "ranks"), [((12, 10), [3] * 5), ((7, 15), [1, 4, 2, 3])])
def test_ranks_of_merges_add_up_to_the_smaller_side(
    shape: tuple[int, int], ranks: list[int]
) -> None:
    layer = trained_layer(shape, 1, 2.0, torch.float64)
    first = layer.weight.clone()
    for k, rank in enumerate(ranks):
        layer.reset(drawn(shape, rank, "A", k), scale=2.0)
        nn.init.normal_(layer.lora_B, generator=keyed_generator(0, "B", k))
        layer.merge()
        added = torch.linalg.matrix_rank(layer.weight - first, rtol=1e-9)
        assert added == min(sum(ranks[: k + 1]), *shape)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-14)])
def test_the_first_weight_and_the_recorded_factors_give_every_later_weight(
    make_model: MakeModel, tokens: Tensor, dtype: torch.dtype, tolerance: float
) -> None:
    model = make_model().to(dtype)
    begin(model, 0)
    optimizer = adamw(model)
    expected = {name: layer.weight.double().clone() for name, layer in iter_adapters(model)}
    for cycle in range(1, 5):
        learn(model, optimizer, tokens, steps=3)
        for name, layer in iter_adapters(model):
            expected[name] += layer.scale * layer.lora_B.double() @ layer.lora_A.double()
        restart(model, optimizer, cycle, rank=cycle)
        for name, layer in iter_adapters(model):
            error = (layer.weight - expected[name]).norm() / expected[name].norm()
            assert error < tolerance


def test_a_reset_of_the_same_rank_changes_the_parameters_in_place() -> None:
    layer = trained_layer((9, 7), 3, 2.0, torch.float32)
    a, b, weight = layer.lora_A, layer.lora_B, layer.weight
    fresh = drawn((9, 7), 3, "next")
    layer.reset(fresh, scale=0.5)
    assert layer.lora_A is a
    assert layer.lora_B is b
    assert layer.weight is weight
    assert torch.equal(layer.lora_A, fresh)
    assert layer.scale == 0.5


def test_a_reset_does_not_keep_the_tensor_that_it_was_given() -> None:
    for rank in (3, 4):
        layer = trained_layer((9, 7), 3, 2.0, torch.float32)
        fresh = drawn((9, 7), rank, "next")
        layer.reset(fresh, scale=0.5)
        with torch.no_grad():
            layer.lora_A.add_(1)
        assert torch.equal(fresh, drawn((9, 7), rank, "next"))


def test_one_step_after_a_restart_the_adapters_are_new(
    make_model: MakeModel, tokens: Tensor
) -> None:
    model = make_model()
    begin(model, 0)
    optimizer = adamw(model)
    learn(model, optimizer, tokens, steps=6)
    old = {name: layer.lora_A.clone() for name, layer in iter_adapters(model)}
    restart(model, optimizer, 1)
    new = {name: layer.lora_A.clone() for name, layer in iter_adapters(model)}
    learn(model, optimizer, tokens, steps=1)
    for name, layer in iter_adapters(model):
        assert cosine(layer.lora_A, new[name]) > 0.999
        assert cosine(layer.lora_A, old[name]) < 0.9
        assert (layer.lora_A - new[name]).abs().max() <= 2 * LR  # no jump
        assert layer.lora_B.norm() <= 4 * LR * math.sqrt(layer.lora_B.numel())


def test_a_restart_begins_adam_anew_for_the_adapters_alone(
    make_model: MakeModel, tokens: Tensor
) -> None:
    model = make_model()
    begin(model, 0)
    optimizer = adamw(model)
    learn(model, optimizer, tokens, steps=6)
    restart(model, optimizer, 1)
    assert all(factor not in optimizer.state for factor in iter_factors(model))
    learn(model, optimizer, tokens, steps=1)
    assert all(optimizer.state[factor]["step"] == 1 for factor in iter_factors(model))
    assert all(optimizer.state[other]["step"] == 7 for other in iter_others(model))


@pytest.mark.parametrize("rank", [RANK, RANK + 3])
def test_a_restart_leaves_everything_else_to_the_bit(
    make_model: MakeModel, tokens: Tensor, rank: int
) -> None:
    model = make_model()
    begin(model, 0)
    optimizer = adamw(model)
    learn(model, optimizer, tokens, steps=6)
    before = values_and_state(iter_others(model), optimizer)
    restart(model, optimizer, 1, rank=rank)
    assert bits_equal(iter_others(model), optimizer, before)


@pytest.mark.parametrize("rank", [1, RANK + 3])
def test_after_a_change_of_rank_the_new_parameters_are_trained(
    make_model: MakeModel, tokens: Tensor, rank: int
) -> None:
    model = make_model()
    begin(model, 0)
    optimizer = adamw(model)
    learn(model, optimizer, tokens, steps=3)
    old = list(iter_factors(model))
    logits = model(tokens)
    restart(model, optimizer, 1, rank=rank)
    torch.testing.assert_close(model(tokens), logits, rtol=1e-5, atol=1e-5)
    in_optimizer = {id(p) for p in optimizer.param_groups[0]["params"]} | set(
        map(id, optimizer.state)
    )
    assert not in_optimizer & set(map(id, old))
    new = {name: layer.lora_A.clone() for name, layer in iter_adapters(model)}
    learn(model, optimizer, tokens, steps=2)  # A moves with the second step
    for name, layer in iter_adapters(model):
        assert layer.rank == rank
        assert layer.lora_B.norm() > 0
        assert not torch.equal(layer.lora_A, new[name])


def test_a_frozen_weight_changes_only_at_merges(make_model: MakeModel, tokens: Tensor) -> None:
    model = make_model()
    begin(model, 0)
    optimizer = adamw(model)
    first = {name: layer.weight.clone() for name, layer in iter_adapters(model)}
    for cycle in (1, 2):
        learn(model, optimizer, tokens, steps=3)
        for name, layer in iter_adapters(model):
            assert not layer.weight.requires_grad
            assert layer.weight.grad is None
            assert layer.weight not in optimizer.state
            assert torch.equal(layer.weight, first[name])
        restart(model, optimizer, cycle)
        assert all(not torch.equal(layer.weight, first[n]) for n, layer in iter_adapters(model))
        first = {name: layer.weight.clone() for name, layer in iter_adapters(model)}


def finish(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Adapters end, and full rank begins."""
    for _, layer in iter_adapters(model):
        layer.merge()
    unwrap(model)
    renew(optimizer, model)


def test_unwrapping_after_a_merge_preserves_the_function_and_leaves_no_adapter(
    make_model: MakeModel, tokens: Tensor
) -> None:
    model = make_model()
    names = [name for name, _ in model.named_parameters()]
    begin(model, 0)
    optimizer = adamw(model)
    learn(model, optimizer, tokens, steps=4)
    before = model(tokens)
    finish(model, optimizer)
    torch.testing.assert_close(model(tokens), before, rtol=1e-5, atol=1e-5)
    assert [name for name, _ in model.named_parameters()] == names
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not list(iter_adapters(model))


def test_unwrapping_right_after_wrapping_is_as_if_nothing_had_been_done(
    make_model: MakeModel, tokens: Tensor
) -> None:
    model, plain = make_model(), make_model()
    begin(model, 0)
    unwrap(model)
    for other in (model, plain):
        learn(other, adamw(other), tokens, steps=3)
    assert all(map(torch.equal, model.parameters(), plain.parameters()))


def test_the_optimizer_trains_what_each_phase_trains(make_model: MakeModel, tokens: Tensor) -> None:
    model = make_model()
    optimizer = adamw(model)
    learn(model, optimizer, tokens, steps=2)
    begin(model, 0)
    renew(optimizer, model)
    learn(model, optimizer, tokens, steps=3)
    restart(model, optimizer, 1)
    learn(model, optimizer, tokens, steps=1)
    finish(model, optimizer)
    learn(model, optimizer, tokens, steps=2)
    trained = optimizer.param_groups[0]["params"]
    assert len(trained) == len(list(model.parameters()))
    assert set(optimizer.state) == set(model.parameters())
    for name, parameter in model.named_parameters():
        assert any(parameter is other for other in trained)
        assert optimizer.state[parameter]["step"] == (2 if "_proj." in name else 8)


@pytest.mark.parametrize("direction", ["full to ReLoRA", "ReLoRA to full"])
def test_a_change_of_phase_keeps_only_the_moments_that_continue(
    make_model: MakeModel, tokens: Tensor, direction: str
) -> None:
    model = make_model()
    if direction == "ReLoRA to full":
        begin(model, 0)
    optimizer = adamw(model)
    learn(model, optimizer, tokens, steps=4)
    before = values_and_state(iter_others(model), optimizer)
    if direction == "ReLoRA to full":
        finish(model, optimizer)
    else:
        begin(model, 0)
        renew(optimizer, model)
    assert set(optimizer.state) == set(iter_others(model))
    assert bits_equal(iter_others(model), optimizer, before)


def test_projections_trained_again_start_with_fresh_moments(
    make_model: MakeModel, tokens: Tensor
) -> None:
    model = make_model()
    begin(model, 0)
    optimizer = adamw(model)
    learn(model, optimizer, tokens, steps=4)
    finish(model, optimizer)
    before = {name: p.clone() for name, p in model.named_parameters()}
    learn(model, optimizer, tokens, steps=1)
    for name, parameter in model.named_parameters():
        if "_proj." in name:
            moved = (parameter - before[name]).abs().max().item()
            assert moved == pytest.approx(LR, rel=1e-3)  # what Adam's first step does


def test_a_weight_that_gets_frozen_keeps_no_gradient(make_model: MakeModel) -> None:
    model = make_model()
    tokens = torch.zeros(1, 5, dtype=torch.int64)
    model.loss(tokens).backward()  # type: ignore[no-untyped-call]
    begin(model, 0)
    assert all(layer.weight.grad is None for _, layer in iter_adapters(model))
    assert model.lm_head.weight.grad is not None


class Embedded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(6, 8), nn.Linear(8, 6, bias=False)
        self.head.weight = self.embed.weight
        self.biased, self.plain = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("biased", "Linear with a bias"),
        ("embed", "kind Embedding"),
        ("head", "shares its weight"),
    ],
)
def test_a_layer_that_wrapping_would_damage_is_refused(name: str, said: str) -> None:
    model = Embedded()
    layers = dict(model.named_modules())
    with pytest.raises(RankscopeError, match=f"{name} .*{said}|{name} {said}"):
        wrap(
            model, name, torch.ones(2, 8), scale=1.0, make=lambda w, a, s: LoRALinear(w, a, scale=s)
        )
    assert dict(model.named_modules()) == layers
    wrap(
        model, "plain", torch.ones(2, 8), scale=1.0, make=lambda w, a, s: LoRALinear(w, a, scale=s)
    )
