"""An answer is recalled while its question and every file are as they were, and never otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rankscope.checkpoints.contents import Skip
from rankscope.pipeline.curves import Curve, FoundCurves
from rankscope.pipeline.recall import Recall
from rankscope.pipeline.seen_files import SEEN, TICK
from rankscope.results.columns import EVALUATION_CSV, EVALUATION_RECORD, SCORES_FOLDER
from rankscope.results.record import write_with_record

SKIP = Skip("run", "", "unreadable", "why")


class Asked(FoundCurves):
    """An answer of one number."""

    measured = 1
    table: Any = None


@pytest.fixture
def recall(tmp_path: Path) -> Recall:
    """A question about a run and a text, with an answer in the results."""
    for name in ("run/weights", "text", "elsewhere/base", "out/store/step", "out/beside"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    out = tmp_path / "out"
    write_with_record(out / "record.json", {"key": "k"}, {"table.csv": b"1"})
    time.sleep(2 * TICK / 1e9)  # what is younger may change once more without a trace
    files = (tmp_path / "text",)
    return Recall("all", (tmp_path / "run",), out, "record.json", ("store",), files=files)


def answer(recall: Recall, **changed: Any) -> FoundCurves:
    elsewhere = str(recall.out.parent / "elsewhere")
    curve = Curve("run", str(recall.paths[0]), "text", "store", {})
    fields: dict[str, Any] = {
        "skips": (),
        "notes": (),
        "mended": (),
        "computed": 1,
        "key": "k",
    } | changed
    planned, folders = frozenset({("run", 1)}), frozenset({elsewhere})
    fields = {"curves": (curve,), **fields}
    return Asked(asked={"run": (1,)}, planned=planned, folders=folders, **fields)


def test_what_the_call_saw_is_noted(recall: Recall) -> None:
    assert recall.recorded() is None
    recall.remember(answer(recall), recall.look())
    record = recall.recorded()
    assert record is not None
    assert record[SEEN]["curves"] == [[str(recall.paths[0]), "store"]]
    assert record[SEEN]["planned"] == [["run", 1]]


CHANGES: dict[str, Callable[[Path], object]] = {
    "a checkpoint": lambda root: (root / "run/weights").write_bytes(b"2"),
    "a new file of the run": lambda root: (root / "run/more").write_bytes(b""),
    "the text": lambda root: (root / "text").write_bytes(b"2"),
    "a file read elsewhere": lambda root: (root / "elsewhere/base").write_bytes(b"2"),
    "the store": lambda root: (root / "out/store/step").unlink(),
    "a table": lambda root: (root / "out/table.csv").write_bytes(b"2"),
    "no table": lambda root: (root / "out/table.csv").unlink(),
    "the record": lambda root: (root / "out/record.json").write_bytes(b"{"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_it_does_not_outlive_a_change(recall: Recall, change: str) -> None:
    recall.remember(answer(recall), recall.look())
    assert recall.recorded() is not None
    CHANGES[change](recall.out.parent)
    assert recall.recorded() is None


def test_another_question_has_no_answer(recall: Recall) -> None:
    recall.remember(answer(recall), recall.look())
    run = recall.paths[0]
    others = [
        replace(recall, about="some"),
        replace(recall, paths=(run, recall.out.parent / "elsewhere")),
        replace(recall, paths=(run, recall.out.parent / "absent")),
        replace(recall, paths=("hf://org/run",)),
        replace(recall, files=()),
        replace(recall, beside=("beside",)),
    ]
    assert recall.recorded() is not None
    assert all(other.recorded() is None for other in others)


OTHER_RUN = Curve("run", "/run", "text", "store", {})


@pytest.mark.parametrize("fields", [{"key": None}, {"skips": (SKIP,)}, {"curves": (OTHER_RUN,)}])
def test_an_answer_that_may_be_another_next_time_is_not_noted(
    recall: Recall, fields: dict[str, Any]
) -> None:
    recall.remember(answer(recall, **fields), recall.look())
    assert recall.recorded() is None


def test_what_changed_during_the_call_or_just_before_is_not_noted(recall: Recall) -> None:
    before = recall.look()
    (recall.out.parent / "run/weights").write_bytes(b"22")
    recall.remember(answer(recall), before)
    assert recall.recorded() is None
    recall.remember(answer(recall), recall.look())  # the change is too recent
    assert recall.recorded() is None


def test_another_working_folder_has_no_answer(
    recall: Recall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run may name its data, and an adapter its base model, relative to it."""
    recall.remember(answer(recall), recall.look())
    assert recall.recorded() is not None
    monkeypatch.chdir(tmp_path)
    assert recall.recorded() is None


def test_results_within_a_run_are_no_change_of_it(recall: Recall) -> None:
    out = recall.out.parent / "run/results"
    inside = replace(recall, out=out, record=EVALUATION_RECORD, stores=(SCORES_FOLDER,))
    before = inside.look()
    (out / SCORES_FOLDER).mkdir(parents=True)
    write_with_record(out / EVALUATION_RECORD, {"key": "k"}, {EVALUATION_CSV: b"1"})
    inside.remember(answer(inside), before)
    assert inside.recorded() is not None
