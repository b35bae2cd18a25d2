"""Laws of kept rows: a call that plans only what is new gives what one from nothing gives."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rankscope.analysis import spectra_tasks
from rankscope.analysis.analyze import answer
from rankscope.analysis.analyzed import Analysis
from rankscope.analysis.question import Question
from rankscope.checkpoints.contents import Contents, Skip
from rankscope.checkpoints.fingerprint import fingerprint
from rankscope.checkpoints.run import Checkpoint
from rankscope.results.spectra_store import read_entries
from rankscope.results.step_rows import read_step_rows
from tests.analysis.series import Inline, answered, renamed, weights, write_step
from tests.conftest import Tensors, TinyRun

SHAPES = {"layers.0.mlp.down_proj": (16, 24), "layers.1.mlp.up_proj": (24, 16)}
WRITTEN = ("metrics.csv", "metrics.parquet", "skipped.jsonl")
SAID = ("key", "rows", "status", "skipped", "notes", "breaks", "summary", "options", "runs")


def results_of(out: Path) -> dict[str, object]:
    record = json.loads((out / "analysis.json").read_text())
    tables: dict[str, object] = {name: (out / name).read_bytes() for name in WRITTEN}
    return tables | {name: record[name] for name in SAID if name != "key"}


def trails_of(out: Path) -> dict[str, str]:
    """The trail of each step whose rows are kept."""
    stored = {path.name: read_step_rows(path) for path in (out / "rows").rglob("*.safetensors")}
    return {name: one.about["trail"] for name, one in stored.items() if one is not None}


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Steps whose headers were read."""
    steps: list[int] = []
    whole = Checkpoint.read

    def noted(checkpoint: Checkpoint) -> Contents:
        steps.append(checkpoint.step)
        return whole(checkpoint)

    monkeypatch.setattr(Checkpoint, "read", noted)
    return steps


@pytest.mark.parametrize("out", [".", "runs", "results"])
def test_results_among_the_runs_do_not_hide_what_is_new(
    tmp_path: Path, rng: np.random.Generator, out: str
) -> None:
    root, folder = tmp_path / "tree", tmp_path / "tree" / out
    write_step(root / "runs" / "one", 1, weights(rng, SHAPES))
    question = Question(paths=(root,))
    for _ in range(2):
        assert answered(question, folder).measured == 2
    assert question.recalled(folder) is not None
    write_step(root / "runs" / "one", 2, weights(rng, SHAPES))
    assert question.recalled(folder) is None
    assert answered(question, folder).measured == 6  # weights of two steps, and their changes


def test_a_file_is_opened_once_for_the_keys_of_all_that_is_in_it(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes = {f"layers.0.mlp.experts.{at}.up_proj": (4, 3) for at in range(9)}
    write_step(tmp_path / "run", 1, weights(rng, shapes))
    opened: list[str] = []

    def noted(path: str) -> str:
        opened.append(path)
        return fingerprint(path)

    monkeypatch.setattr(spectra_tasks, "fingerprint", noted)
    assert answered(Question(paths=(tmp_path / "run",)), tmp_path / "out").measured == len(shapes)
    assert [Path(path).name for path in opened] == ["model.safetensors"]


def drifting(rng: np.random.Generator) -> Iterator[Tensors]:
    now = weights(rng, SHAPES)
    while True:
        now = {name: one + rng.normal(size=one.shape).astype("f4") for name, one in now.items()}
        yield now


def plain(at: int, tensors: Tensors) -> Tensors:
    return tensors


def gap(at: int, tensors: Tensors) -> Tensors:
    """A matrix is missing for two steps, and is measured from where it was."""
    return {n: t for n, t in tensors.items() if at not in (3, 4) or "layers.1.mlp.up" not in n}


def late(at: int, tensors: Tensors) -> Tensors:
    """A matrix that was there once comes back."""
    return {n: t for n, t in tensors.items() if at in (2, 5, 6) or "layers.1.mlp.up" not in n}


def broken(at: int, tensors: Tensors) -> Tensors:
    """Another model begins."""
    wide = {name: np.vstack([tensor, tensor]) for name, tensor in tensors.items()}
    return wide if at in (3, 4) else tensors


def wrapped(at: int, tensors: Tensors) -> Tensors:
    return renamed(tensors, "wrapped.") if at > 2 else tensors


def unwrapped(at: int, tensors: Tensors) -> Tensors:
    return renamed(tensors, "wrapped.") if at < 3 else tensors


def spoiled(at: int, tensors: Tensors) -> Tensors:
    if at == 3:
        name = next(iter(tensors))
        return tensors | {name: np.full_like(tensors[name], np.nan)}
    return tensors


def odd(at: int, tensors: Tensors) -> Tensors:
    """A note and a skip that come and go."""
    extra = {"layers.0.mlp.strange": np.ones((3, 4, 5), np.float32)}
    return tensors | extra if at in (1, 5) else tensors


@pytest.mark.parametrize(
    "change",
    [
        *(gap, broken, wrapped, spoiled, odd),
        *(pytest.param(one, marks=pytest.mark.slow) for one in (plain, late, unwrapped)),
    ],
)
def test_a_series_that_grows_gives_what_it_gives_at_once(
    tmp_path: Path, rng: np.random.Generator, change: Callable[[int, Tensors], Tensors]
) -> None:
    run, question = tmp_path / "run", Question(paths=(tmp_path / "run",))
    for at, tensors in zip(range(1, 7), drifting(rng), strict=False):
        write_step(run, at, change(at, tensors))
        if at > 1:
            answered(question, tmp_path / "grown")
    answered(question, tmp_path / "clean")
    assert results_of(tmp_path / "grown") == results_of(tmp_path / "clean")
    trails = trails_of(tmp_path / "clean")
    assert len(trails) == 6 and trails_of(tmp_path / "grown") == trails


@pytest.mark.parametrize("components", [None, pytest.param("all", marks=pytest.mark.slow)])
def test_so_does_a_run_with_merges(relora_run: TinyRun, tmp_path: Path, components: str) -> None:
    run = tmp_path / "relora"
    shutil.copytree(relora_run.path, run, ignore=lambda *_: ["checkpoints", "merges"])
    question = Question(paths=(run,), components=components, roles="q,v,o,up")
    for step in (0, 10, 20, 30):
        for kind, name in (("checkpoints", f"step-{step:08d}"), ("merges", f"step-{step:08d}.*")):
            for path in (relora_run.path / kind).glob(name):
                (run / kind).mkdir(exist_ok=True)
                copy = shutil.copytree if path.is_dir() else shutil.copy
                copy(path, run / kind / path.name)
        answered(question, tmp_path / "grown")
    answered(question, tmp_path / "clean")
    assert results_of(tmp_path / "grown") == results_of(tmp_path / "clean")


def test_a_note_is_said_once(
    tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Checkpoint.read

    def noted(checkpoint: Checkpoint) -> Contents:
        note = Skip(str(checkpoint.path), "", "odd", "is odd")
        notes = (note,) if checkpoint.step in (1, 5) else ()
        return replace(whole(checkpoint), notes=notes)

    monkeypatch.setattr(Checkpoint, "read", noted)
    run, question = tmp_path / "run", Question(paths=(tmp_path / "run",), layers="0")
    series(run, rng, 5)
    shutil.move(run / "checkpoint-5", tmp_path / "last")
    answered(question, tmp_path / "out")
    shutil.move(tmp_path / "last", run / "checkpoint-5")
    found = answered(question, tmp_path / "out")
    assert [note.path for note in found.notes] == [str(run / "checkpoint-1")]


def series(run: Path, rng: np.random.Generator, count: int = 6) -> None:
    for at, tensors in zip(range(1, count + 1), drifting(rng), strict=False):
        write_step(run, at, tensors)


def test_steps_behind_one_that_was_rewritten_are_kept_again(
    tmp_path: Path, rng: np.random.Generator, read: list[int]
) -> None:
    run, question = tmp_path / "run", Question(paths=(tmp_path / "run",))
    series(run, rng, 5)
    shutil.move(run / "checkpoint-5", tmp_path / "last")
    answered(question, tmp_path / "out")
    write_step(run, 3, weights(rng, SHAPES))
    answered(question, tmp_path / "out")
    shutil.move(tmp_path / "last", run / "checkpoint-5")
    read.clear()
    answered(question, tmp_path / "out")
    assert {*read} == {3, 4, 5}


def test_a_new_checkpoint_opens_itself_and_the_two_before(
    tmp_path: Path, rng: np.random.Generator, read: list[int]
) -> None:
    run, question = tmp_path / "run", Question(paths=(tmp_path / "run",))
    series(run, rng)
    shutil.move(run / "checkpoint-6", tmp_path / "last")
    answered(question, tmp_path / "out")
    shutil.move(tmp_path / "last", run / "checkpoint-6")
    read.clear()
    found = answered(question, tmp_path / "out")
    assert sorted(read) == [4, 5, 6]
    assert found.computed == 2 * len(SHAPES)


def rewritten(run: Path, out: Path) -> None:
    path = run / "checkpoint-3" / "model.safetensors"
    save_file({name: 2 * tensor for name, tensor in load_file(path).items()}, path)


def reconfigured(run: Path, out: Path) -> None:
    path = run / "checkpoint-3" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_attention_heads": 1}))


def configured_above(run: Path, out: Path) -> None:
    (run / "config.json").write_text("{}")


def removed(run: Path, out: Path) -> None:
    shutil.rmtree(run / "checkpoint-3")


def store_gone(run: Path, out: Path) -> None:
    next(out.glob("spectra/*/*3.safetensors")).unlink()


def store_flipped(run: Path, out: Path) -> None:
    path = next(out.glob("spectra/*/*3.safetensors"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def rows_flipped(run: Path, out: Path) -> None:
    path = next(out.glob("rows/*/*3.safetensors"))
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def rows_of_another_step(run: Path, out: Path) -> None:
    shutil.copy(*(next(out.glob(f"rows/*/*{step}.safetensors")) for step in (2, 3)))


@pytest.mark.parametrize(
    "do",
    [
        *(rewritten, reconfigured, configured_above, removed),
        *(store_gone, store_flipped, rows_flipped, rows_of_another_step),
    ],
)
def test_what_changed_before_is_planned_again(
    tmp_path: Path,
    rng: np.random.Generator,
    read: list[int],
    do: Callable[[Path, Path], object],
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    question = Question(paths=(run,))
    series(run, rng, 4)
    answered(question, out)
    do(run, out)
    (run / "note").write_text("so that this call is not the last one again")
    read.clear()
    answered(question, out)
    assert 2 in read  # the walk goes on from the last step that holds: without a change, from 4
    answered(question, tmp_path / "clean")
    assert results_of(out) == results_of(tmp_path / "clean")
    for path in (tmp_path / "clean").glob("spectra/*/*"):  # beside what other calls left there
        stored = {entry.key for entry in read_entries(out / path.relative_to(tmp_path / "clean"))}
        assert {entry.key for entry in read_entries(path)} <= stored


def test_rows_of_another_question_are_not_taken(tmp_path: Path, rng: np.random.Generator) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    series(run, rng, 3)
    for settings in ({"layers": "0"}, {"layers": "1"}, {"steps": "1,3"}, {}):
        question = Question(paths=(run,), **settings)  # type: ignore[arg-type]
        answered(question, out)
        shutil.rmtree(tmp_path / "clean", ignore_errors=True)
        answered(question, tmp_path / "clean")
        assert results_of(out) == results_of(tmp_path / "clean")


def test_a_step_that_failed_is_tried_again(tmp_path: Path, rng: np.random.Generator) -> None:
    run, question = tmp_path / "run", Question(paths=(tmp_path / "run",))
    series(run, rng, 3)
    path = run / "checkpoint-3" / "model.safetensors"

    class Interfering(Inline):
        def run(self, jobs):  # type: ignore[no-untyped-def]
            found = list(super().run(jobs))
            path.write_bytes(path.read_bytes())
            yield from found

    time.sleep(0.04)
    failed: Analysis = answer(question, out=tmp_path / "out", engine=Interfering())
    assert failed.key is None and {skip.reason for skip in failed.skips} == {
        "changed-while-reading"
    }
    assert not list((tmp_path / "out").glob("rows/*/*3.safetensors"))
    answered(question, tmp_path / "out")
    answered(question, tmp_path / "clean")
    assert results_of(tmp_path / "out") == results_of(tmp_path / "clean")
