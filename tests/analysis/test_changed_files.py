"""Laws of files that change under an analysis: no number of them, and the next call measures."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rankscope.analysis.analyze import analyze_runs
from rankscope.analysis.analyzed import Analysis
from rankscope.analysis.jobs import AnalysisEngine, AnalysisJob, Outcome
from rankscope.analysis.local_workers import LocalWorkers
from rankscope.analysis.request import Selection
from rankscope.checkpoints.discovery import survey
from rankscope.checkpoints.file_states import states_below
from tests.analysis.series import Inline, weights, write_step
from tests.conftest import TinyRun

CHANGED = "changed-while-reading"
Do = Callable[[], object]


class Disturbed(AbstractContextManager["Disturbed"]):
    """An engine during whose work something happens to the files."""

    def __init__(
        self, engine: AbstractContextManager[AnalysisEngine], do: Do, *, when: str
    ) -> None:
        self._engine, self._do, self._when = engine, do, when

    def run(self, jobs: Iterable[AnalysisJob]) -> Iterator[tuple[AnalysisJob, Outcome]]:
        with self._engine as engine:
            if self._when == "planned":  # all of it, and nothing is read
                jobs = list(jobs)
                self._do()
            if self._when == "begun":  # the first step is planned, and the others are not
                jobs = self._begun(jobs)
            found = engine.run(jobs)
            if self._when == "read":
                found = iter(list(found))
                self._do()
            yield from found

    def _begun(self, jobs: Iterable[AnalysisJob]) -> Iterator[AnalysisJob]:
        is_first = True
        for job in jobs:
            if is_first:
                self._do()
            is_first = False
            yield job

    def __exit__(self, *_: object) -> None:
        return None


@pytest.fixture
def run(tmp_path: Path, rng: np.random.Generator) -> Path:
    """Write a series of three steps."""
    for step in (1, 2, 3):
        write_step(tmp_path / "run", step, weights(rng))
    return tmp_path / "run"


def weights_of(run: Path, step: int) -> Path:
    return run / f"checkpoint-{step}" / "model.safetensors"


def turned(path: Path) -> None:
    """Write the same tensors under each other's names: the size and every value stay."""
    tensors = load_file(path)
    names = sorted(tensors)
    by_shape = {
        shape: [n for n in names if tensors[n].shape == shape] for shape in ((24, 16), (16, 24))
    }
    new = {}
    for group in by_shape.values():
        new |= dict(zip(group, (tensors[name] for name in reversed(group)), strict=True))
    before = path.stat().st_size
    content = path.with_suffix(".new")
    save_file(new, content)
    path.write_bytes(content.read_bytes())
    content.unlink()
    assert path.stat().st_size == before


def analysis(
    run: Path, out: Path, engine: AbstractContextManager[AnalysisEngine], *components: str
) -> Analysis:
    selection = Selection.of(components=components or None)
    return analyze_runs(survey([run]), selection, out=out, engine=engine)


def steps_of(found: Analysis, status: str) -> set[tuple[str, int]]:
    return {(row["component"], row["step"]) for row in found.rows if row["status"] == status}


@pytest.mark.parametrize("above", [".", "..", "run"])
def test_states_are_by_the_path_that_leads_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, above: str
) -> None:
    (tmp_path / "run" / "inner" / "run").mkdir(parents=True)
    (tmp_path / "run" / "inner" / "a").write_bytes(b"12")
    (tmp_path / "run" / "inner" / "run" / "b").write_bytes(b"1")
    monkeypatch.chdir(tmp_path / "run" / "inner")
    found = states_below(Path(above))
    there = [path for path in Path(above).rglob("*") if path.is_file()]
    assert {*found} == {*map(str, there)} and len(found) == 1 + (above != "run")
    assert all(found[str(path)][0] == path.stat().st_size for path in there)


@pytest.mark.parametrize("workers", [0, 1, 2])
@pytest.mark.parametrize("when", ["planned", "read"])
@pytest.mark.slow
def test_a_rewritten_file_is_measured_by_the_next_call(
    run: Path, tmp_path: Path, workers: int, when: str
) -> None:
    engine = LocalWorkers(workers) if workers else Inline()
    disturbed = Disturbed(engine, lambda: turned(weights_of(run, 2)), when=when)
    found = analysis(run, tmp_path / "out", disturbed)
    missing = {("weight", 2), ("update", 2), ("update", 3)}
    assert steps_of(found, f"skipped:{CHANGED}") == missing
    assert steps_of(found, "ok") == {("weight", 1), ("weight", 3)}
    assert {(s.path, s.reason) for s in found.skips} == {(str(weights_of(run, 2)), CHANGED)}
    assert found.key is None
    after = analysis(run, tmp_path / "out", Inline())
    clean = analysis(run, tmp_path / "clean", Inline())
    assert after.rows == clean.rows and not after.skips
    assert after.computed == sum((row["component"], row["step"]) in missing for row in clean.rows)


def test_the_start_of_cumulative_updates_is_watched(run: Path, tmp_path: Path) -> None:
    disturbed = Disturbed(Inline(), lambda: turned(weights_of(run, 1)), when="begun")
    found = analysis(run, tmp_path / "out", disturbed, "weight", "cumulative_update")
    missing = {("weight", 1), ("cumulative_update", 2), ("cumulative_update", 3)}
    assert steps_of(found, f"skipped:{CHANGED}") == missing
    assert steps_of(found, "ok") == {("weight", 2), ("weight", 3)}


def test_records_of_merges_are_looked_at_from_the_beginning(
    relora_run: TinyRun, tmp_path: Path
) -> None:
    path = relora_run.path / "merges" / "step-00000020.safetensors"

    def rewrite() -> None:
        path.write_bytes(path.read_bytes() + b"")

    disturbed = Disturbed(Inline(), rewrite, when="begun")
    found = analysis(relora_run.path, tmp_path / "out", disturbed, "merge")
    assert steps_of(found, f"skipped:{CHANGED}") == {("merge", 20)}
    assert steps_of(found, "ok") == {("merge", 10)}


def test_a_file_that_is_rewritten_read_and_removed_has_no_number(run: Path, tmp_path: Path) -> None:
    """When its number arrives, nothing is there to compare: reading compares for itself."""
    rewritten = Disturbed(Inline(), lambda: turned(weights_of(run, 2)), when="planned")
    removed = Disturbed(rewritten, weights_of(run, 2).unlink, when="read")
    found = analysis(run, tmp_path / "out", removed, "weight")
    assert steps_of(found, f"skipped:{CHANGED}") == {("weight", 2)}
    assert steps_of(found, "ok") == {("weight", 1), ("weight", 3)}


def test_a_checkpoint_removed_after_reading_is_measured(run: Path, tmp_path: Path) -> None:
    clean = analysis(run, tmp_path / "clean", Inline())
    disturbed = Disturbed(Inline(), weights_of(run, 1).unlink, when="read")
    found = analysis(run, tmp_path / "out", disturbed)
    assert found.rows == clean.rows and not found.skips
