"""Every setting of the optimizer reaches the update: AdamW and clipping written out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rankscope.training.config import Config
from rankscope.training.data.batches import training_batch
from rankscope.training.data.corpus import load_corpus
from rankscope.training.initial_model import initial_model
from rankscope.training.schedule import timeline
from rankscope.training.train import train

MakeConfig = Callable[..., Config]
STEPS = 4
RUN = {
    "method": "full",
    "schedule.restart_every": 0,
    "schedule.steps": STEPS,
    "schedule.warmup_steps": 1,
    "schedule.learning_rate": 0.01,
}


def by_hand(config: Config) -> dict[str, torch.Tensor]:
    """Weights after all steps; Kingma & Ba's moments, decay as Loshchilov & Hutter apply it."""
    corpus, settings = load_corpus(config.data, config.batch), config.optimizer
    model = initial_model(config, corpus.vocab_size)
    named = dict(model.named_parameters())
    means = {name: torch.zeros_like(p) for name, p in named.items()}
    squares = {name: torch.zeros_like(p) for name, p in named.items()}
    for step in range(STEPS):
        batch = training_batch(
            corpus, config.batch, seed=config.seed, step=step, order=config.data.order
        )
        gradients = torch.autograd.grad(model.loss(batch), list(named.values()))
        norm = math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradients))
        shrink = min(1.0, settings.clip / norm) if settings.clip else 1.0
        rate = timeline(config, first_phase_end=None).learning_rate(step)
        with torch.no_grad():
            for (name, weight), gradient in zip(named.items(), gradients, strict=True):
                g = gradient * shrink
                means[name] = settings.beta1 * means[name] + (1 - settings.beta1) * g
                squares[name] = settings.beta2 * squares[name] + (1 - settings.beta2) * g * g
                mean = means[name] / (1 - settings.beta1 ** (step + 1))
                square = squares[name] / (1 - settings.beta2 ** (step + 1))
                weight -= rate * settings.weight_decay * weight
                weight -= rate * mean / (square.sqrt() + settings.eps)
    return {name: p.detach() for name, p in named.items()}


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer.beta1": 0.5},
        {"optimizer.beta2": 0.5},
        {"optimizer.beta2": 0.999},
        {"optimizer.eps": 0.1},
        {"optimizer.weight_decay": 2.0},
        {"optimizer.clip": 0.0},
        {"optimizer.clip": 0.05},
    ],
    ids=str,
)
@pytest.mark.slow
def test_a_setting_reaches_the_update(make_config: MakeConfig, settings: dict[str, Any]) -> None:
    visible = {"optimizer.eps": 1e-3}  # else rounding near a gradient of zero would be amplified
    config, plain = make_config(RUN | visible | settings), make_config(RUN | visible)
    train(config)
    folder = Path(config.out) / "checkpoints" / f"step-{STEPS:08d}"
    trained, expected = load_file(folder / "model.safetensors"), by_hand(config)
    without = by_hand(plain)
    differs = 0.0
    for name, weight in expected.items():
        torch.testing.assert_close(trained[_stored(name, trained)], weight, rtol=1e-4, atol=2e-6)
        differs = max(differs, float((weight - without[name]).abs().max()))
    assert differs > 1e-4  # else the comparison could not fail


def _stored(name: str, trained: dict[str, torch.Tensor]) -> str:
    """Name of a parameter in a checkpoint, which is that of transformers' Llama."""
    return next(stored for stored in trained if stored.endswith(name))
