"""A training may lose its power at any time, and ends as if it had not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rankscope import run_files
from rankscope.training import loop
from rankscope.training.run_folder import metrics_log, recording, state
from tests.reliability.power_loss.faults import Fault, altered, planted
from tests.reliability.power_loss.sample import Sample
from tests.reliability.power_loss.training import recorded_training, violations

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def test_a_training_that_loses_its_power_goes_on(tmp_path: Path) -> None:
    training = recorded_training(tmp_path / "runs")
    sample = Sample(every=50, resumed=40, lost_again=80)
    assert list(violations(training, sample)) == []


FAULTS = [
    altered(
        metrics_log,
        "the log is not flushed before the state",
        "        flush_file(self.path)",
        "        pass",
    ),
    altered(
        recording,
        "the state is written before the log is flushed",
        "            self.metrics.flush()\n            write_state(self.run, model, optimizer, "
        "position, energies=cycles.energies)\n",
        "            write_state(self.run, model, optimizer, "
        "position, energies=cycles.energies)\n            self.metrics.flush()\n",
    ),
    altered(
        loop,
        "the state is written before the checkpoint",
        "        if saving:\n            self.recorder.checkpoint(",
        "        if saving or stopping:\n            self.recorder.state(self.model, "
        "self.optimizer, self.position(step), cycles=self.cycles)\n"
        "        if saving:\n            self.recorder.checkpoint(",
    ),
    altered(
        run_files,
        "a merge is written in place",
        "write_listed_file(path, content, kind=MERGES_FORMAT)",
        "path.write_bytes(content)",
    ),
    altered(
        state,
        "the states that are kept go before the new one comes",
        '    write_folder(run / "state"',
        "    for old in iter_states(run):\n        remove_folder(old)\n"
        '    write_folder(run / "state"',
    ),
]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_a_planted_fault_is_found(tmp_path: Path, fault: Fault) -> None:
    with planted(fault):
        training = recorded_training(tmp_path / "runs", is_compared=False)
    # The second save that follows a merge, where each of these shows, whichever part comes first.
    late = Sample(
        every=10, start=tuple(f"run/{one}/step-00000006" for one in ("checkpoints", "state"))
    )
    assert any(violations(training, late))
