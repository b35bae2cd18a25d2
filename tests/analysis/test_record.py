import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import rankscope as rs
from benchmarks.make_checkpoints import TINY, write_adapters
from rankscope.analysis.analyze import analyze_runs, answer
from rankscope.analysis.question import Question
from rankscope.analysis.request import Selection
from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.discovery import survey
from rankscope.checkpoints.run import Checkpoint
from tests.analysis.series import Inline, answered
from tests.conftest import TinyRun, random_weights, write_model


@pytest.fixture
def question(relora_run: TinyRun) -> Question:
    return Question(paths=(relora_run.path,), roles=("q", "up"))


def test_the_same_question_is_answered_from_the_record(question: Question, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert question.recalled(out) is None
    found = answered(question, out)
    recalled = question.recalled(out)
    assert recalled is not None and recalled.record["rows"] == len(found.rows)
    assert recalled.table.equals(found.table)
    assert (recalled.skips, recalled.notes, recalled.key) == (found.skips, found.notes, found.key)


def test_another_question_other_files_and_a_lost_table_are_not(
    question: Question, relora_run: TinyRun, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    answered(question, out)
    for other in ({"roles": "q"}, {"steps": "0,10"}, {"trust_pickle": True}, {"subspaces": 2}):
        assert replace(question, **other).recalled(out) is None  # type: ignore[arg-type]
    path = relora_run.path / "checkpoints" / "step-00000030" / "model.safetensors"
    tensors = load_file(path)
    save_file({name: tensor + np.float32(1) for name, tensor in tensors.items()}, path)
    assert question.recalled(out) is None
    answered(question, out)
    assert question.recalled(out) is not None
    (out / "metrics.parquet").unlink()
    assert question.recalled(out) is None


@pytest.mark.parametrize("back", [False, True])
def test_a_file_with_the_size_and_time_that_it_had_is_seen_to_be_another(
    question: Question, relora_run: TinyRun, tmp_path: Path, back: bool
) -> None:
    """No program can set back the time at which anything about a file last changed."""
    answered(question, tmp_path / "out")
    path = relora_run.path / "checkpoints" / "step-00000030" / "model.safetensors"
    before, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    if back:
        path.write_bytes(content)
    else:
        path.with_suffix(".new").write_bytes(content)
        path.with_suffix(".new").rename(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = path.stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert question.recalled(tmp_path / "out") is None


@pytest.mark.parametrize(
    "do",
    [
        lambda run: (run / "checkpoints" / "step-00000030" / "notes.txt").write_text("new"),
        lambda run: (run / "checkpoints" / "step-00000040").mkdir(),
        lambda run: (run / "merges" / "step-00000020.safetensors").unlink(),
        lambda run: (run.parent / "config.json").write_text("{}"),
        lambda run: (run / "metrics.jsonl").write_text('{"step": 30, "loss": 1.0}\n'),
    ],
    ids=["a file", "a folder", "one less", "a file above", "a log"],
)
def test_whatever_changes_is_looked_into(
    question: Question, relora_run: TinyRun, tmp_path: Path, do: Callable[[Path], object]
) -> None:
    answered(question, tmp_path / "out")
    assert question.recalled(tmp_path / "out") is not None
    do(relora_run.path)
    assert question.recalled(tmp_path / "out") is None


def test_a_young_file_is_not_trusted(
    question: Question, relora_run: TinyRun, tmp_path: Path
) -> None:
    """What is written in the same tick of the clock would leave no trace."""
    (relora_run.path / "notes.txt").write_text("new")
    found = answer(question, out=tmp_path / "out", engine=Inline())
    assert found.seen is None and question.recalled(tmp_path / "out") is None


@pytest.mark.parametrize("base", ["", "nobody/none"])
def test_a_model_that_was_not_found_may_come(tmp_path: Path, base: str) -> None:
    write_adapters(tmp_path / "run", TINY)
    path = next((tmp_path / "run").rglob("adapter_config.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": base}))
    question = Question(paths=(tmp_path / "run",), roles="q")
    answered(question, tmp_path / "out")
    assert (question.recalled(tmp_path / "out") is None) == bool(base)


def test_a_call_asked_to_recheck_looks_into_every_checkpoint(
    relora_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = {"out": tmp_path / "out", "components": "weight", "roles": "q", "jobs": 1}
    time.sleep(0.04)
    rs.analyze(relora_run.path, **asked)  # type: ignore[arg-type]
    read: list[int] = []
    whole = Checkpoint.read

    def noted(checkpoint: Checkpoint) -> Contents:
        read.append(checkpoint.step)
        return whole(checkpoint)

    monkeypatch.setattr(Checkpoint, "read", noted)
    rs.analyze(relora_run.path, **asked)  # type: ignore[arg-type]
    assert not read
    rs.analyze(relora_run.path, **asked, recheck=True)  # type: ignore[arg-type]
    assert {0, 10, 20, 30} <= {*read}


@pytest.mark.slow
def test_what_changed_during_the_analysis_is_not_taken_for_analysed(
    question: Question, relora_run: TinyRun, tmp_path: Path
) -> None:
    path = relora_run.path / "checkpoints" / "step-00000000" / "model.safetensors"
    tensors = load_file(path)

    def change(share: float, label: str) -> None:
        if not changed and label.endswith("step 30"):
            changed.append(label)
            save_file({name: 2 * tensor for name, tensor in tensors.items()}, path)

    changed: list[str] = []
    time.sleep(0.04)
    answer(question, out=tmp_path / "out", engine=Inline(), progress=change)
    assert changed
    assert question.recalled(tmp_path / "out") is None


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
    again = analyze_runs(found, Selection(components=("weight",)), out=tmp_path)
    assert again.computed and not again.skips
