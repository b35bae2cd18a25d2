"""`rankscope.relora` trains as the reference trainer's own adapters do, step by step."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from rankscope import relora
from rankscope.relora.adapted_model import adapted, factors_of, plain_name
from rankscope.training.adapters.cycles import Cycles
from rankscope.training.adapters.lora_linear import iter_adapters, trained_parameters
from rankscope.training.config import PROJECTIONS, Config, ModelConfig
from rankscope.training.config_file import config_from
from rankscope.training.model import LanguageModel

VOCABULARY, RANK, ALPHA, SEED, EVERY = 31, 2, 3.0, 7, 4


@pytest.fixture
def config() -> Config:
    settings = {"method": "lora", "adapter.rank": RANK, "adapter.alpha": ALPHA, "seed": SEED}
    return config_from(settings)


def adamw(parameters: list[nn.Parameter]) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameters, lr=1e-2, betas=(0.9, 0.95), fused=True)


def batch(step: int) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    return torch.randint(VOCABULARY, (4, 13), generator=generator)


def learn(model: LanguageModel, optimizer: torch.optim.Optimizer, step: int) -> float:
    loss = model.loss(batch(step))
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    optimizer.zero_grad()
    return float(loss.detach())


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float64, 1e-11), (torch.float32, 2e-4)])
def test_losses_and_weights_are_equal_over_two_restarts(
    config: Config, dtype: torch.dtype, rounding: float
) -> None:
    shape = ModelConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=2)
    theirs = LanguageModel(replace(shape, num_attention_heads=4), VOCABULARY)
    theirs.initialise(SEED)
    theirs = theirs.to(dtype)
    ours = copy.deepcopy(theirs)
    wrapped = relora.wrap(ours, RANK, alpha=ALPHA, targets=PROJECTIONS, seed=SEED)
    zeros = {
        f"{n}.weight": torch.zeros_like(one.base_layer.weight)
        for n, one in adapted(wrapped).items()
    }
    cycles = Cycles(config)

    def begin(optimizer: torch.optim.Optimizer | None, cycle: int) -> None:
        merged = cycles.end(theirs)
        cycles.begin(
            theirs, optimizer, zeros, cycle=cycle, cycles=3, merged=merged, agree=lambda one: one
        )

    begin(None, 0)
    their_optimizer = adamw(trained_parameters(theirs))
    our_optimizer = adamw([p for p in wrapped.parameters() if p.requires_grad])
    for step in range(3 * EVERY):
        if step and step % EVERY == 0:
            begin(their_optimizer, step // EVERY)
            relora.restart(wrapped, our_optimizer, cycle=step // EVERY)
        losses = learn(theirs, their_optimizer, step), learn(ours, our_optimizer, step)
        assert losses[1] == pytest.approx(losses[0], rel=rounding)
    held = {plain_name(name): p.detach() for name, p in ours.named_parameters()}
    for name, layer in iter_adapters(theirs):
        a, b, scale = factors_of(adapted(wrapped)[name])
        assert scale == layer.scale
        for mine, its in ((a, layer.lora_A), (b, layer.lora_B)):
            assert torch.allclose(
                mine, its, rtol=0, atol=100 * rounding * float(its.detach().abs().max())
            )
    for name, parameter in theirs.named_parameters():
        if ".lora_" not in name:
            size = float(parameter.detach().abs().max())
            assert torch.allclose(held[name], parameter, rtol=0, atol=10 * rounding * size), name
