from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rankscope.dry_run.size import disk_estimate, memory_estimate, saved_steps
from rankscope.training.adapters.lora_linear import LoRALinear, target_shapes, wrap
from rankscope.training.config import Config
from rankscope.training.config_file import config_from
from rankscope.training.model import LanguageModel
from rankscope.training.parameter_counts import parameter_counts
from rankscope.training.run_folder.saves import dropped, is_saved
from rankscope.training.schedule import timeline

WORDS = 300
SHAPE = {"model.hidden_size": 64, "model.intermediate_size": 160, "batch.sequence_length": 128}
DEEP = {"model.hidden_size": 32, "model.intermediate_size": 128, "model.num_hidden_layers": 6}
ALL_HEADS = {"model.num_key_value_heads": 4, "batch.sequences": 4, "batch.sequence_length": 256}


def saved_bytes(config: Config, model: LanguageModel) -> int:
    """What one forward pass keeps for the backward pass, each storage once, without parameters."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    shape = config.batch.sequences, config.batch.sequence_length + 1
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bfloat16"),
    ):
        model.loss(torch.zeros(shape, dtype=torch.int64))
    return sum(t.untyped_storage().nbytes() for at, t in kept.items() if at not in own)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("shape", [SHAPE, DEEP, ALL_HEADS])
@pytest.mark.slow
def test_activations_are_about_what_a_forward_pass_keeps(
    shape: dict[str, Any], method: str, precision: str
) -> None:
    config = config_from(shape | {"method": method, "precision": precision})
    model = LanguageModel(config.model, WORDS)
    if config.has_adapters:
        for name, (_, inputs) in target_shapes(model, config.adapter.target_modules).items():
            wrap(model, name, torch.ones(4, inputs), scale=1.0, make=make)
    (counts,) = parameter_counts(config, WORDS)
    size = config.batch.sequences, config.batch.sequence_length
    memory = memory_estimate(config, counts, sequences=size[0], sequence_length=size[1])
    # The head's gradient is among what is kept; the chunk of logits is gone by then.
    assert memory.activations + 4 * counts.head == pytest.approx(
        saved_bytes(config, model), rel=0.25
    )


def make(weight: torch.nn.Parameter, a: Tensor, scale: float) -> LoRALinear:
    return LoRALinear(weight, a, scale=scale)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_parameters_gradients_and_moments_are_what_a_step_holds(method: str) -> None:
    config = config_from({"method": method})
    (counts,) = parameter_counts(config, WORDS)
    memory = memory_estimate(config, counts, sequences=1, sequence_length=8)
    trained, frozen = 4 + 4 + 8, 4
    held = memory.parameters + memory.gradients + memory.moments
    assert held == trained * counts.trainable + frozen * counts.wrapped
    assert memory.total >= held


def test_more_tokens_take_more_for_activations_and_nothing_else_without_end() -> None:
    config = config_from({"model.vocab_size": 50_000})
    (counts,) = parameter_counts(config, 50_000)
    one, many = (
        memory_estimate(config, counts, sequences=n, sequence_length=2048) for n in (1, 64)
    )
    assert many.activations == 64 * one.activations
    assert many.logits == one.logits


RUNS: list[dict[str, Any]] = [
    {},
    {"log.save_every": 7, "log.save_log_spaced": True},
    {"method": "relora", "schedule.restart_every": 9, "log.save_every": 20},
    {"method": "relora", "schedule.restart_every": 9, "log.save_before_restarts": False},
    {
        "method": "phases",
        "phases.methods": ["full", "relora"],
        "phases.lengths": [11],
        "schedule.restart_every": 6,
    },
    {"log.save_every": 3, "log.keep_last": 2, "log.keep_every": 12},
    {"log.save_every": 3, "log.save_log_spaced": True, "log.keep_last": 1},
]
SHORT = {"schedule.steps": 50, "schedule.warmup_steps": 3}


@pytest.mark.parametrize("run", RUNS)
def test_the_steps_are_those_that_the_trainer_saves_and_keeps(run: dict[str, Any]) -> None:
    config = config_from(SHORT | run)
    line = timeline(config)
    present: list[int] = []
    for step in range(51):
        if is_saved(step, config.log, line):
            present.append(step)
            log = config.log
            gone = dropped(present, keep_last=log.keep_last, keep_every=log.keep_every)
            present = [step for step in present if step not in gone]
    assert saved_steps(config) == present


def test_bytes_are_four_a_number() -> None:
    config = config_from(
        SHORT | {"method": "relora", "schedule.restart_every": 20, "log.save_every": 25}
    )
    counts = parameter_counts(config, 257)
    disk, (one,) = disk_estimate(config, counts), counts
    assert disk.checkpoints == 5 * 4 * (one.total + one.projections)  # 0, 20, 25, 40, 50
    assert disk.merges == 2 * 4 * one.adapters
    assert disk.states == 2 * 4 * (one.total + 2 * one.trainable)
    assert disk.total == disk.checkpoints + disk.merges + disk.states


def test_a_checkpoint_at_the_change_of_phase_is_of_the_phase_before() -> None:
    phases = {"method": "phases", "phases.methods": ["full", "lora"], "phases.lengths": [25]}
    config = config_from(SHORT | phases | {"log.save_every": 25})
    full, lora = parameter_counts(config, 257)
    disk = disk_estimate(config, (full, lora))  # 0 and 25 at full rank, 50 with adapters
    assert disk.checkpoints == 4 * (3 * (full.total + full.projections) + lora.adapters)
    assert disk.merges == 0
