"""The engine of a GPU, run on the processor: what goes to the device, and what to the workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rankscope.analysis import device_engine
from rankscope.analysis.device_engine import DeviceEngine
from rankscope.analysis.jobs import AnalysisJob
from rankscope.analysis.local_workers import LocalWorkers
from rankscope.analysis.plan import Selection, plan_run
from rankscope.analysis.worker import decompose
from rankscope.checkpoints.discovery import open_run
from rankscope.pipeline.engine import Failure, Job
from tests.devices import DEVICES, torch

save_file = pytest.importorskip("safetensors.torch").save_file

SIDES = (40, 8, 40, 12, 8, 50, 44, 8)


@pytest.fixture
def jobs(tmp_path: Path, rng: np.random.Generator) -> list[AnalysisJob]:
    for step in (1, 2):
        weights = {
            f"model.layers.{i}.self_attn.q_proj.weight": torch.from_numpy(
                rng.normal(size=(side, side + 2))
            ).float()
            for i, side in enumerate(SIDES)
        }
        (tmp_path / f"step-{step}").mkdir()
        save_file(weights, tmp_path / f"step-{step}" / "model.safetensors")
    plans = plan_run(open_run(tmp_path), Selection())
    tasks = [task for plan in plans for task in plan.tasks]
    return [Job(i, task) for i, task in enumerate(tasks)]


@pytest.mark.parametrize("device", DEVICES)
def test_every_job_is_done_once_wherever_it_goes(
    device: str, jobs: list[AnalysisJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rankscope.analysis.device_worker import DeviceWorker

    monkeypatch.setattr(device_engine, "ROWS_OF_ONE", 30)
    monkeypatch.setattr(device_engine, "ON_DEVICE", 3)
    there: list[int] = []

    class Watched(DeviceWorker):
        def _decomposed(self, job: AnalysisJob) -> object:  # type: ignore[override]
            there.append(job.plan)
            return super()._decomposed(job)

    def in_turn() -> Iterator[AnalysisJob]:
        yield from jobs

    with DeviceEngine(Watched(device, 2), LocalWorkers(1), 1) as engine:
        found = list(engine.run(in_turn()))
    assert sorted(job.plan for job, _ in found) == list(range(len(jobs)))
    large = [job.plan for job in jobs if min(job.task.component.recipe.tensors()[0].shape) >= 30]
    assert sorted(there) == large and 3 < len(large) < len(jobs)
    for job, outcome in found:
        expected = decompose(job.task.recipe)
        assert isinstance(outcome, list) and isinstance(expected, list)
        assert outcome[0].spectrum.values == pytest.approx(expected[0].spectrum.values, rel=1e-9)  # type: ignore[union-attr]


def test_a_failure_on_the_device_comes_back_to_its_job(
    jobs: list[AnalysisJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rankscope.analysis.device_worker import DeviceWorker

    monkeypatch.setattr(device_engine, "ROWS_OF_ONE", 30)
    Path(jobs[0].task.files[0][0]).unlink()
    with DeviceEngine(DeviceWorker("cpu", 1), LocalWorkers(1), 1) as engine:
        found = {job.plan: outcome for job, outcome in engine.run(iter(jobs))}
    assert isinstance(found[0], Failure) and found[0].reason == "unreadable"
