from __future__ import annotations

from typing import Any

import pytest
import torch

from rankscope.errors import RankscopeError
from rankscope.training.adapters.lora_linear import LoRALinear, target_shapes, wrap
from rankscope.training.config_file import config_from
from rankscope.training.model import LanguageModel, is_projection
from rankscope.training.parameter_counts import parameter_counts

SHAPES = [(16, 24, 1, 2, 1), (24, 40, 3, 6, 2), (32, 20, 2, 4, 4)]
METHODS: dict[str, dict[str, Any]] = {
    "full": {"method": "full"},
    "lora": {"method": "lora"},
    "relora": {"method": "relora", "schedule.restart_every": 100},
}


def settings(shape: tuple[int, ...], **others: Any) -> dict[str, Any]:
    names = ("hidden_size", "intermediate_size", "num_hidden_layers")
    names += ("num_attention_heads", "num_key_value_heads")
    return {f"model.{name}": size for name, size in zip(names, shape, strict=True)} | others


@pytest.mark.parametrize("targets", [["q_proj"], ["k_proj", "down_proj"], None])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", SHAPES)
def test_the_counts_are_those_of_the_model_itself(
    shape: tuple[int, ...], method: str, targets: list[str] | None
) -> None:
    chosen = {} if targets is None else {"adapter.target_modules": targets}
    config = config_from(settings(shape) | METHODS[method] | chosen | {"adapter.rank": 3})
    model = LanguageModel(config.model, 50)
    if config.has_adapters:
        for name, (_, inputs) in target_shapes(model, config.adapter.target_modules).items():
            wrap(model, name, torch.ones(3, inputs), scale=1.0, make=make)
    (counts,) = parameter_counts(config, 50)
    parameters = dict(model.named_parameters())
    sizes = {name: p.numel() for name, p in parameters.items()}
    assert counts.total == sum(sizes.values())
    assert counts.trainable == sum(p.numel() for p in parameters.values() if p.requires_grad)
    assert counts.projections == sum(sizes[name] for name in sizes if is_projection(name))
    assert counts.adapters == sum(sizes[name] for name in sizes if ".lora_" in name)
    assert counts.embedding == sizes["model.embed_tokens.weight"]
    assert counts.head == sizes["lm_head.weight"]
    assert counts.norms == sum(p.numel() for p in parameters.values() if p.ndim == 1)


def make(weight: torch.nn.Parameter, a: torch.Tensor, scale: float) -> LoRALinear:
    return LoRALinear(weight, a, scale=scale)


def test_every_phase_is_counted_on_its_own() -> None:
    phases = {"phases.methods": ["full", "relora", "full"], "phases.lengths": [100, 300]}
    config = config_from({"method": "phases", "schedule.restart_every": 50} | phases)
    first, second, third = parameter_counts(config, 257)
    assert [one.steps for one in (first, second, third)] == [100, 300, 600]
    assert [one.method for one in (first, second, third)] == ["full", "relora", "full"]
    assert first.total == third.total == third.trainable == second.total - second.adapters
    assert second.trainable == second.total - second.projections
    assert first.adapters == third.wrapped == 0


def test_an_impossible_rank_is_refused_unless_a_policy_bounds_it() -> None:
    wide = {"method": "relora", "schedule.restart_every": 100, "adapter.rank": 33}
    with pytest.raises(
        RankscopeError,
        match=r"rank = 33 exceeds the smaller side of model\.layers\.0\.self_attn\.k_proj",
    ):
        parameter_counts(config_from(wide), 257)
    bounded = {"relora.rank_policy": "budget", "adapter.rank_stabilised": True}
    (counts,) = parameter_counts(config_from(wide | bounded), 257)
    assert counts.adapters < 33 * 2 * (2 * 128 + 2 * 96 + 3 * 240)
    assert parameter_counts(config_from({"adapter.rank": 33}), 257)  # nobody uses it
