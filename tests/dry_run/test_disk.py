from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rankscope.dry_run.disk import disk_estimate, saved_steps
from rankscope.training.config_file import config_from
from rankscope.training.loop import Trainer
from rankscope.training.parameter_counts import parameter_counts
from rankscope.training.run_folder.retention import dropped
from rankscope.training.schedule import timeline

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
    trainer: Any = SimpleNamespace(config=config, timeline=timeline(config))
    present: list[int] = []
    for step in range(51):
        if step == 50 or Trainer.is_save(trainer, step):
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
