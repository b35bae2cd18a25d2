from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import rankscope as rs
from rankscope.analysis.analyze import analyze_runs, recall
from rankscope.analysis.analyzed import RecalledAnalysis
from rankscope.analysis.plan import Selection
from rankscope.checkpoints.discovery import survey
from rankscope.checkpoints.run import Checkpoint
from tests.conftest import TinyRun, random_weights, write_model


def record(path: Path, out: Path, selection: Selection | None = None) -> RecalledAnalysis | None:
    return recall(out, survey([path]), selection or Selection())


@pytest.mark.slow
def test_the_same_question_is_answered_from_the_record(relora_run: TinyRun, tmp_path: Path) -> None:
    assert record(relora_run.path, tmp_path) is None
    found = analyze_runs(survey([relora_run.path]), Selection(), out=tmp_path)
    answered = record(relora_run.path, tmp_path)
    assert answered is not None and answered.record["rows"] == len(found.rows)
    assert answered.table.equals(found.table)


@pytest.mark.slow
def test_another_question_other_files_and_a_lost_table_are_not(
    relora_run: TinyRun, tmp_path: Path
) -> None:
    analyze_runs(survey([relora_run.path]), Selection(), out=tmp_path)
    assert record(relora_run.path, tmp_path, Selection(roles=("q",))) is None
    path = relora_run.path / "checkpoints" / "step-00000030" / "model.safetensors"
    tensors = load_file(path)
    save_file({name: tensor + np.float32(1) for name, tensor in tensors.items()}, path)
    assert record(relora_run.path, tmp_path) is None
    analyze_runs(survey([relora_run.path]), Selection(), out=tmp_path)
    assert record(relora_run.path, tmp_path) is not None
    (tmp_path / "metrics.parquet").unlink()
    assert record(relora_run.path, tmp_path) is None


@pytest.mark.slow
def test_what_changed_during_the_analysis_is_not_taken_for_analysed(
    relora_run: TinyRun, tmp_path: Path
) -> None:
    path = relora_run.path / "checkpoints" / "step-00000000" / "model.safetensors"
    tensors = load_file(path)

    def change(share: float, label: str) -> None:
        if not changed and label.endswith("step 30"):
            changed.append(label)
            save_file({name: 2 * tensor for name, tensor in tensors.items()}, path)

    changed: list[str] = []
    analyze_runs(survey([relora_run.path]), Selection(), out=tmp_path, progress=change)
    assert changed
    assert record(relora_run.path, tmp_path) is None


@pytest.mark.slow
def test_a_log_that_grew_is_read_again(relora_run: TinyRun, tmp_path: Path) -> None:
    analyze_runs(survey([relora_run.path]), Selection(), out=tmp_path)
    (relora_run.path / "metrics.jsonl").write_text('{"step": 30, "loss": 1.0}\n')
    assert record(relora_run.path, tmp_path) is None


def test_steps_of_another_unit_are_not_recalled(tmp_path: Path, rng: np.random.Generator) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    for step in (1, 2):
        write_model(run / f"step-{step}", random_weights(rng))
    assert rs.analyze(run, out=out, components="weight", roles="q", jobs=1).attrs["unit"] == "step"
    for step in (1, 2):
        (run / f"step-{step}").rename(run / f"epoch-{step}")
    assert rs.analyze(run, out=out, components="weight", roles="q", jobs=1).attrs["unit"] == "epoch"


def test_another_family_gives_other_roles(full_run: Path, tmp_path: Path) -> None:
    """Of the same bytes: what the store holds has the coordinates of its family."""
    family = tmp_path / "family.toml"
    family.write_text(
        'name = "swapped"\ndescription = "q and k exchanged"\nmodel_types = []\n'
        'keys = ["q_proj"]\n[roles]\nq_proj = "k"\nk_proj = "q"\n'
    )
    for given, role in ((None, "q"), (family, "k")):
        table = rs.analyze(
            full_run, out=tmp_path / "out", family=given, components="weight", roles="q,k", jobs=1
        )
        of_q = table[table["name"].str.contains("q_proj")]
        assert len(of_q) and set(of_q["role"]) == {role}


def test_what_failed_is_tried_again(
    relora_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = relora_run.path / "checkpoints" / "step-00000030" / "model.safetensors"
    content = path.read_bytes()
    found = survey([relora_run.path])
    whole = {checkpoint.step: checkpoint.read() for checkpoint in found.runs[0]}
    path.write_bytes(content[:-100])  # after its header was read
    monkeypatch.setattr(Checkpoint, "read", lambda checkpoint: whole[checkpoint.step])
    done = analyze_runs(found, Selection(components=("weight",)), out=tmp_path)
    assert done.key is None and done.skips[0].reason == "changed-while-reading"
    path.write_bytes(content)
    monkeypatch.undo()
    assert record(relora_run.path, tmp_path, Selection(components=("weight",))) is None
