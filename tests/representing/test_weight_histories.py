"""What the numbers of a weight depend on beside its checkpoint: merges, and weights before them."""

from __future__ import annotations

from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import rankscope as rs
from rankscope.components.component import Component
from rankscope.components.selection import AT_CHECKPOINTS
from rankscope.evaluation.open_model import OpenOptions
from rankscope.evaluation.text_sets import text_sets
from rankscope.pipeline.curves import survey_here
from rankscope.representing.collected import Energy
from rankscope.representing.feature_plans import FeaturePlans
from rankscope.representing.feature_tasks import INPUTS, FeatureRequest, FeatureTask
from rankscope.representing.probe_windows import ProbeOptions
from rankscope.representing.weight_histories import moment_of
from rankscope.spectra.matrices import Dense
from tests.evaluation.models import write_own_run

NAME = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints at 0, 2, 4 and 6, a merge at 4, into weights that were bfloat16 at step 0."""
    torch.set_num_threads(1)
    tmp_path = tmp_path_factory.mktemp("merged")
    written = write_own_run(tmp_path / "run", **{"log.save_every": 2})
    (path,) = written.checkpoints[0].path.glob("model*.safetensors")
    tensors = {name: one.bfloat16().to(one.dtype) for name, one in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})
    (path.parent / "MANIFEST.json").unlink()
    (tmp_path / "text.txt").write_text("It was a bright cold day.")
    return tmp_path / "run"


def tasks_of(run: Path, *energy: Energy) -> dict[int, FeatureTask]:
    text = text_sets([str(run.parent / "text.txt")])[0]
    asked = FeatureRequest(text, ProbeOptions(), (), OpenOptions(), None, energy)
    plans = FeaturePlans(survey_here([run], layout=None), asked)
    tasks = [task for plan in plans for task in plan.tasks]
    assert {task.curve.settings["at"] for task in tasks} == {INPUTS}
    return {task.checkpoint.step: task for task in tasks}


def weight(task: FeatureTask) -> Component:
    return next(one for one in AT_CHECKPOINTS["weight"](moment_of(task)) if one.name == NAME)


def test_a_merged_weight_keeps_the_rounding_that_it_had_before(run: Path) -> None:
    tasks = tasks_of(run, "weight")
    floors = {}
    for step, task in tasks.items():
        matrix = weight(task).recipe.read()
        assert isinstance(matrix, Dense)
        floors[step] = float(matrix.rounding.floor)
    (path,) = rs.open_run(run)[0].path.glob("model*.safetensors")
    before = load_file(path)[NAME].double().numpy()
    rounding = 2.0**-9 * np.linalg.norm(before)  # each entry by half a unit in its eighth bit
    assert floors[0] > rounding / 30
    assert floors[6] == pytest.approx(floors[0], rel=0.2)
    assert str(path) in dict(tasks[6].files)


def test_a_merge_that_a_training_adds_changes_no_earlier_step(run: Path, tmp_path: Path) -> None:
    run = copytree(run.parent, tmp_path / "copied") / "run"
    before = tasks_of(run, "weight", "update")
    (merge,) = rs.open_run(run).merge_files
    content = merge.read_bytes()
    (merge.parent / merge.name.replace("4", "5")).write_bytes(content)
    after = tasks_of(run, "weight", "update")
    changed = {step for step, task in after.items() if task.key != before[step].key}
    assert changed == {step for step in before if step > 4}


def test_a_first_checkpoint_has_no_update_to_look_into(run: Path) -> None:
    assert [*tasks_of(run, "update")] == [2, 4, 6]
    assert [*tasks_of(run, "adapter", "update")] == [0, 2, 4, 6]
