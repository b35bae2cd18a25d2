from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rankscope.errors import RankscopeError
from rankscope.training.config import AdapterConfig
from rankscope.training.keyed import keyed_generator
from rankscope.training.model import LanguageModel
from rankscope.training.relora import LoRALinear, iter_adapters, restart, wrap

MakeModel = Callable[..., LanguageModel]
FULL = {"method": "full", "schedule.restart_every": 0}


def trained_layer(
    shape: tuple[int, int], rank: int, scale: float, dtype: torch.dtype
) -> LoRALinear:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(shape, dtype=dtype, generator=generator)
    layer = LoRALinear(weight, rank=rank, scale=scale)
    layer.reset(generator)
    nn.init.normal_(layer.lora_B, std=0.5, generator=generator)
    return layer


def adamw(model: nn.Module) -> torch.optim.AdamW:
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.AdamW(trained, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.0, fused=True)


def learn(
    model: LanguageModel, optimizer: torch.optim.Optimizer, tokens: Tensor, *, steps: int
) -> None:
    for _ in range(steps):
        model.loss(tokens).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()


def norm(gradient: Tensor | None) -> float:
    return 0.0 if gradient is None else gradient.norm().item()


def test_wrapping_leaves_the_function_exactly_as_it_was(
    make_model: MakeModel, tokens: Tensor
) -> None:
    assert torch.equal(make_model()(tokens), make_model(FULL)(tokens))


def test_all_seven_projections_of_every_layer_are_wrapped_and_nothing_else(
    make_model: MakeModel,
) -> None:
    model = make_model()
    assert len(list(iter_adapters(model))) == 2 * 7
    left = [name for name, layer in model.named_modules() if type(layer) is nn.Linear]
    assert left == ["lm_head"]


def test_only_the_named_projections_are_wrapped(make_model: MakeModel) -> None:
    model = make_model({"adapter.target_modules": ["q_proj", "down_proj"]})
    wrapped = {name.rpartition(".")[2] for name, _ in iter_adapters(model)}
    assert wrapped == {"q_proj", "down_proj"}


def test_a_rank_above_the_smaller_side_is_refused(make_model: MakeModel) -> None:
    with pytest.raises(RankscopeError, match=r"adapter\.rank = 9 exceeds .*k_proj.* 8 x 16"):
        make_model({"adapter.rank": 9, "adapter.target_modules": ["k_proj"]})


def test_b_learns_from_the_first_step_and_a_from_the_second(
    make_model: MakeModel, tokens: Tensor
) -> None:
    model = make_model()
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
@pytest.mark.parametrize("shape", [(8, 8), (5, 17), (17, 5), (1, 3), (96, 40)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_a_merge_leaves_the_function_unchanged(
    scale: float, shape: tuple[int, int], dtype: torch.dtype, tolerance: float
) -> None:
    layer = trained_layer(shape, min(4, *shape), scale, dtype)
    x = torch.randn(11, shape[1], dtype=dtype, generator=torch.Generator().manual_seed(5))
    before = layer(x)
    layer.merge()
    layer.reset(keyed_generator(0, "test"))
    assert (layer(x) - before).norm() / before.norm() < tolerance
    assert (layer.lora_B == 0).all()


def test_a_merge_that_forgets_the_scale_does_change_the_function() -> None:
    class Forgetful(LoRALinear):
        def delta(self) -> Tensor:
            return self.lora_B.double() @ self.lora_A.double()

    layer = trained_layer((9, 7), 3, 2.0, torch.float64)
    layer.__class__ = Forgetful
    x = torch.randn(11, 7, dtype=torch.float64)
    before = layer(x)
    layer.merge()
    layer.reset(keyed_generator(0, "test"))
    assert (layer(x) - before).norm() / before.norm() > 1e-2


@pytest.mark.parametrize("size", [1e-1, 1e-3, 1e-5])
def test_small_updates_survive_many_merges(size: float) -> None:
    layer = trained_layer((64, 48), 4, 2.0, torch.float32)
    first = layer.weight.double().clone()
    total = torch.zeros_like(first)
    for k in range(20):
        layer.reset(keyed_generator(0, "A", k))
        nn.init.normal_(layer.lora_B, generator=keyed_generator(0, "B", k))
        layer.lora_B.data *= size * layer.weight.norm() / layer.delta().norm()
        total += layer.delta()
        layer.merge()
    error = (layer.weight.double() - first - total).norm() / total.norm()
    assert error < 1e-7 / size  # a rounding of W a merge; in bfloat16 it would be 1e-2 / size


def test_k_merges_of_rank_r_add_rank_k_times_r_up_to_the_smaller_side() -> None:
    layer = trained_layer((12, 10), 3, 2.0, torch.float64)
    first = layer.weight.clone()
    for k in range(1, 6):
        nn.init.normal_(layer.lora_B, generator=keyed_generator(0, "B", k))
        layer.merge()
        layer.reset(keyed_generator(0, "A", k))
        added = (layer.weight - first).detach().numpy()
        assert np.linalg.matrix_rank(added, rtol=1e-9) == min(3 * k, 10)


def test_a_new_a_is_uniform_within_the_bound_of_its_width() -> None:
    layer = trained_layer((6, 400), 5, 1.0, torch.float32)
    assert layer.lora_A.abs().max() <= 1 / 20
    assert layer.lora_A.abs().max() > 0.95 / 20
    assert layer.lora_A.std().item() == pytest.approx(1 / 20 / math.sqrt(3), rel=0.05)


def test_a_reset_changes_the_parameters_in_place(make_model: MakeModel) -> None:
    _, layer = next(iter_adapters(make_model()))
    a, b = layer.lora_A, layer.lora_B
    layer.reset(keyed_generator(0, "x"))
    assert layer.lora_A is a
    assert layer.lora_B is b


def test_new_adapters_differ_between_layers_restarts_and_seeds(make_model: MakeModel) -> None:
    def drawn(seed: int, restarts: int) -> list[Tensor]:
        model = make_model({"seed": seed})
        restart(model, adamw(model), restarts=restarts, seed=seed)
        return [layer.lora_A.flatten()[:8] for _, layer in iter_adapters(model)]

    draws = drawn(1, 1) + drawn(1, 2) + drawn(2, 1)
    assert len({tuple(d.tolist()) for d in draws}) == len(draws)
    torch.rand(17)
    assert all(map(torch.equal, drawn(1, 1), draws))


def test_a_restart_keeps_the_function_and_everything_that_is_not_an_adapter(
    make_model: MakeModel, tokens: Tensor
) -> None:
    model = make_model()
    optimizer = adamw(model)
    learn(model, optimizer, tokens, steps=6)
    logits = model(tokens)
    others = [p for n, p in model.named_parameters() if p.requires_grad and ".lora_" not in n]
    before = copy.deepcopy([(p.data, optimizer.state[p]) for p in others])
    restart(model, optimizer, restarts=1, seed=1)
    torch.testing.assert_close(model(tokens), logits, rtol=1e-5, atol=1e-5)
    for p, (value, state) in zip(others, before, strict=True):
        assert torch.equal(p, value)
        assert all(torch.equal(optimizer.state[p][key], state[key]) for key in state)


def test_one_step_after_a_restart_the_adapters_are_still_the_new_ones(
    make_model: MakeModel, tokens: Tensor
) -> None:
    model = make_model()
    optimizer = adamw(model)
    learn(model, optimizer, tokens, steps=6)
    old = {name: layer.lora_A.clone() for name, layer in iter_adapters(model)}
    restart(model, optimizer, restarts=1, seed=1)
    new = {name: layer.lora_A.clone() for name, layer in iter_adapters(model)}
    learn(model, optimizer, tokens, steps=1)
    for name, layer in iter_adapters(model):
        cosine = torch.cosine_similarity(layer.lora_A.flatten(), new[name].flatten(), dim=0)
        assert cosine > 0.999
        assert torch.cosine_similarity(layer.lora_A.flatten(), old[name].flatten(), dim=0) < 0.9
        assert layer.lora_B.norm() <= 2 * 1e-2 * math.sqrt(layer.lora_B.numel())


def test_a_restart_begins_adam_anew_for_the_adapters_alone(
    make_model: MakeModel, tokens: Tensor
) -> None:
    model = make_model()
    optimizer = adamw(model)
    learn(model, optimizer, tokens, steps=6)
    restart(model, optimizer, restarts=1, seed=1)
    before = {name: layer.lora_A.clone() for name, layer in iter_adapters(model)}
    learn(model, optimizer, tokens, steps=1)
    for name, layer in iter_adapters(model):
        assert optimizer.state[layer.lora_A]["step"] == 1
        assert optimizer.state[layer.lora_B]["step"] == 1
        assert (layer.lora_A - before[name]).abs().max() <= 2 * 1e-2  # no jump: at most 2 lr
    assert optimizer.state[model.model.embed_tokens.weight]["step"] == 7


def test_a_frozen_weight_changes_at_merges_only_and_has_no_adam_state(
    make_model: MakeModel, tokens: Tensor
) -> None:
    model = make_model()
    optimizer = adamw(model)
    first = {name: layer.weight.clone() for name, layer in iter_adapters(model)}
    learn(model, optimizer, tokens, steps=4)
    for name, layer in iter_adapters(model):
        assert not layer.weight.requires_grad
        assert layer.weight not in optimizer.state
        assert torch.equal(layer.weight, first[name])
    restart(model, optimizer, restarts=1, seed=1)
    assert all(not torch.equal(layer.weight, first[n]) for n, layer in iter_adapters(model))


def test_wrapping_keeps_a_weight_in_its_own_type() -> None:
    model = nn.Sequential()
    model.add_module("q_proj", nn.Linear(6, 5, bias=False, dtype=torch.float64))
    wrap(model, AdapterConfig(rank=2, target_modules=("q_proj",)), seed=0)
    (_, layer) = next(iter_adapters(model))
    assert layer.lora_A.dtype == layer.weight.dtype == torch.float64
