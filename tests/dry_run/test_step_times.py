from __future__ import annotations

import time
from typing import Any

import pytest
import torch

from rankscope.dry_run import step_times as module
from rankscope.dry_run.step_times import (
    StepTime,
    device_memory,
    measured_step,
    operations_per_token,
)
from rankscope.training.config import Config
from rankscope.training.config_file import config_from
from rankscope.training.parameter_counts import parameter_counts

SMALL = {"model.hidden_size": 16, "model.intermediate_size": 24, "batch.sequence_length": 48}
HUGE = {"model.hidden_size": 8192, "model.intermediate_size": 32768, "model.num_hidden_layers": 90}


def timed(settings: dict[str, Any], seconds: float = 60.0) -> StepTime | None:
    config = config_from(settings)
    return measured_step(config, parameter_counts(config, 50)[0], 50, seconds=seconds)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_micro_batch_is_timed_where_that_is_quick(method: str) -> None:
    timing = timed(SMALL | {"method": method, "batch.micro_sequences": 8})
    assert timing is not None
    assert timing.tokens == 8 * 48
    assert timing.seconds > 0 and timing.optimizer_seconds > 0


def test_without_time_for_more_a_short_sequence_stands_for_all() -> None:
    timing = timed(SMALL, seconds=1e-3)
    assert timing is not None
    assert timing.tokens == 32


def test_what_is_timed_changes_no_random_number() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    timed(SMALL | {"method": "lora"}, seconds=1e-3)
    assert torch.equal(torch.rand(4), expected)


def test_where_memory_ends_the_last_size_that_went_stands_for_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def timed_up_to_one_sequence(trial: object, sequences: int, length: int) -> StepTime:
        if sequences > 1:
            raise torch.OutOfMemoryError
        return StepTime(sequences * length, 1e-3, 1e-3)

    monkeypatch.setattr(module._Trial, "timed", timed_up_to_one_sequence)
    timing = timed(SMALL)
    assert timing is not None and timing.tokens == 48


def test_a_model_too_large_for_the_machine_is_not_even_made() -> None:
    config = config_from(HUGE)
    (counts,) = parameter_counts(config, 50)
    began = time.process_time()
    assert measured_step(config, counts, 50, seconds=60.0) is None
    assert time.process_time() - began < 1
    assert device_memory("cpu") > 1 << 28


def test_a_step_takes_its_tokens_and_one_update() -> None:
    config = config_from({"batch.sequences": 64, "batch.micro_sequences": 8})
    timing = StepTime(tokens=8 * 64, seconds=0.5, optimizer_seconds=0.25)
    assert timing.step_seconds(config.batch) == pytest.approx(8 * 0.5 + 0.25)


def per_token(config: Config) -> float:
    return operations_per_token(config, parameter_counts(config, 50)[0])


def test_a_frozen_matrix_saves_a_third_and_longer_sequences_cost_attention() -> None:
    (full,) = parameter_counts(config_from(SMALL), 50)
    matrices = full.projections + full.head
    short = per_token(config_from(SMALL | {"batch.sequence_length": 1}))
    long = per_token(config_from(SMALL | {"batch.sequence_length": 101}))
    assert short == pytest.approx(6 * matrices, rel=0.05)
    assert long - short == 6 * 100 * 16 * 2
    lora = config_from(SMALL | {"method": "lora"})
    (counts,) = parameter_counts(lora, 50)
    saved = per_token(config_from(SMALL)) + 6 * counts.adapters - per_token(lora)
    assert saved == 2 * full.projections


@pytest.mark.parametrize(
    ("wall", "processor", "expected"), [(9.0, 2.0, 2.0), (2.0, 3.0, 2.0), (2.0, 2.0, 2.0)]
)
def test_a_cpu_is_timed_by_what_other_programs_lengthen_less(
    wall: float, processor: float, expected: float
) -> None:
    trial = object.__new__(module._Trial)
    trial.config = config_from(SMALL)
    assert trial._between((0.0, 0.0), (wall, processor)) == expected
    trial.config = config_from(SMALL | {"device": "cuda"})
    assert trial._between((0.0, 0.0), (wall, processor)) == wall


@pytest.mark.parametrize(("load", "busy"), [(0.0, False), (2.9, False), (3.9, True)])
def test_a_busy_machine_is_named_with_its_load(
    monkeypatch: pytest.MonkeyPatch, load: float, busy: bool
) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)
    line = module.busy_line("cpu")
    assert (line is not None) == busy
    if line:
        assert f"load {load} on 4 processors" in line
    assert module.busy_line("cuda") is None
