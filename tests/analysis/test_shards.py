"""Shards: each computes its share, in any order, and the plain call finds everything."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

import rankscope as rs
from rankscope.analysis import shard_stores
from rankscope.analysis.analyze import answer
from rankscope.analysis.analyze_shard import ShardResult, answer_share
from rankscope.analysis.jobs import LEAST_WORK, AnalysisJob, Outcome
from rankscope.analysis.question import Question
from rankscope.analysis.shards import Dealer, Shard
from rankscope.results.columns import SPECTRA_FOLDER
from tests.analysis.series import Inline, weights, write_step
from tests.conftest import write_relora_run

RESULTS = ("metrics.csv", "metrics.parquet", "skipped.jsonl", "subspaces.csv", "subspaces.parquet")


@dataclass(frozen=True)
class Task:
    """A task of some work."""

    work: float
    key: str = ""
    files: tuple[()] = ()


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps of a model of four matrices."""
    folder, rng = tmp_path_factory.mktemp("shards") / "run", np.random.default_rng(5)
    for step in (1, 2, 3):
        write_step(folder, step, weights(rng))
    return folder


@pytest.fixture(scope="module")
def question(series: Path) -> Question:
    """Weights, updates, and comparisons that cross steps."""
    return Question(paths=(series,), subspaces=2)


@pytest.fixture(scope="module")
def whole(question: Question, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one plain call writes."""
    out = tmp_path_factory.mktemp("whole")
    answer(question, out=out, engine=Inline())
    return written(out)


def written(out: Path) -> dict[str, bytes]:
    """Tables and stores."""
    stores = [path for name in ("spectra", "subspaces") for path in (out / name).rglob("*")]
    files = [out / name for name in RESULTS] + [path for path in stores if path.is_file()]
    return {str(path.relative_to(out)): path.read_bytes() for path in files if path.exists()}


def share(question: Question, shard: str, out: Path) -> ShardResult:
    return answer_share(question, Shard.of(shard), out=out, engine=Inline())


@pytest.mark.parametrize("given", ["0/4", "17/16", "a/b", "3", "1/2/3", "-1/4", "1/0", "٣/٤", ""])
def test_what_is_no_shard_is_a_wrong_setting(given: str) -> None:
    with pytest.raises(rs.RankscopeError, match="`shard`") as caught:
        Shard.of(given)
    assert len(str(caught.value)) < 200


def test_a_shard_needs_a_folder(series: Path) -> None:
    with pytest.raises(rs.RankscopeError, match="`out`"):
        rs.analyze(series, shard="1/2")


def test_shards_have_the_same_work_but_for_one_task() -> None:
    rng = random.Random(3)
    steps = [[Task(rng.choice([1, 20, 300]) * LEAST_WORK) for _ in range(9)] for _ in range(20)]
    dealer = Dealer(7)
    owners = [dealer.deal(step) for step in steps]
    loads = [
        sum(
            t.work
            for ts, os in zip(steps, owners, strict=True)
            for t, o in zip(ts, os, strict=True)
            if o == n
        )
        for n in range(1, 8)
    ]
    assert max(loads) - min(loads) <= 300 * LEAST_WORK
    assert sum(loads) == sum(task.work for step in steps for task in step)
    again = Dealer(7)
    assert [again.deal(step) for step in steps[:11]] == owners[:11]  # a later step moves nothing


def test_shards_in_any_order_leave_nothing_to_compute(
    question: Question, whole: dict[str, bytes], tmp_path: Path
) -> None:
    done = [share(question, f"{n}/4", tmp_path) for n in (3, 1, 4, 2)]
    assert not (tmp_path / "metrics.csv").exists() and not (tmp_path / "analysis.json").exists()
    assert all(result.computed for result in done)
    assert done[0].missing == {n: done[0].tasks[n] for n in (1, 2, 4)}
    assert not done[-1].missing
    assert share(question, "2/3", tmp_path).computed == 0  # nor for another number of shards
    assert answer(question, out=tmp_path, engine=Inline()).computed == 0
    assert written(tmp_path) == whole
    assert not [path for path in (tmp_path / "shards").rglob("*") if path.is_file()]


def test_a_relora_run_in_shards(tmp_path: Path) -> None:
    write_relora_run(tmp_path / "relora", np.random.default_rng(1))
    asked = Question(paths=(tmp_path / "relora",), components="all", roles="q,up")
    answer(asked, out=tmp_path / "whole", engine=Inline())
    for n in (2, 1, 3):
        share(asked, f"{n}/3", tmp_path / "out")
    assert answer(asked, out=tmp_path / "out", engine=Inline()).computed == 0
    assert written(tmp_path / "out") == written(tmp_path / "whole")


def test_a_plain_call_computes_what_shards_have_not(
    question: Question, whole: dict[str, bytes], tmp_path: Path
) -> None:
    done = share(question, "2/3", tmp_path)
    plain = answer(question, out=tmp_path, engine=Inline())
    assert plain.computed > 0 and written(tmp_path) == whole
    assert share(question, "1/3", tmp_path).computed == 0
    everything = answer(question, out=tmp_path / "elsewhere", engine=Inline()).computed
    assert plain.computed == everything - done.computed


def test_a_plain_call_within_a_shard_loses_nothing(
    question: Question, whole: dict[str, bytes], tmp_path: Path
) -> None:
    """It takes over what is there, and the folder, while the shard is at work."""

    class Interrupted(Inline):
        def run(self, jobs: Iterator[AnalysisJob]) -> Iterator[tuple[AnalysisJob, Outcome]]:  # type: ignore[override]
            for number, pair in enumerate(super().run(jobs)):
                if number in (1, 3, 5):
                    answer(question, out=tmp_path, engine=Inline())
                yield pair

    answer_share(question, Shard(1, 2), out=tmp_path, engine=Interrupted())
    share(question, "2/2", tmp_path)
    assert answer(question, out=tmp_path, engine=Inline()).computed == 0
    assert written(tmp_path) == whole


def test_what_a_shard_adds_while_it_is_taken_over_stays(
    question: Question, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    share(replace(question, roles="up"), "1/2", tmp_path)
    write = shard_stores.KINDS[SPECTRA_FOLDER](tmp_path).write

    def added(*given: object) -> None:
        monkeypatch.undo()
        write(*given)  # type: ignore[arg-type]
        share(question, "1/2", tmp_path)

    monkeypatch.setattr(
        "rankscope.analysis.spectra_files.SpectraFiles.write", lambda _, *g: added(*g)
    )
    shard_stores.gather(tmp_path)
    share(question, "2/2", tmp_path)
    assert answer(question, out=tmp_path, engine=Inline()).computed == 0
    assert written(tmp_path) == whole


@pytest.mark.parametrize("is_own", [True, False])
def test_a_damaged_part_is_computed_again(
    question: Question, whole: dict[str, bytes], tmp_path: Path, is_own: bool
) -> None:
    share(question, "1/2", tmp_path)
    path = next((tmp_path / "shards").rglob("step-*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    if is_own:
        again = share(question, "1/2", tmp_path)
        assert [skip.reason for skip in again.mended] == ["damaged-store"] and again.computed
    found = answer(question, out=tmp_path, engine=Inline())
    assert [skip.reason for skip in found.mended] == [] if is_own else ["damaged-store"]
    assert written(tmp_path) == whole


def test_a_share_has_its_skips(series: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    rng = np.random.default_rng(5)
    for step in (1, 2):
        tensors = weights(rng)
        if step == 2:
            tensors["layers.0.mlp.up_proj.weight"][0, 0] = np.nan
        write_step(run, step, tensors)
    asked = Question(paths=(run,), components="weight")
    found = [share(asked, f"{n}/2", tmp_path / "out") for n in (1, 2)]
    assert sorted(len(one.skips) for one in found) == [0, 1]
    assert not found[1].missing  # it has been tried, and is known to have no spectrum


def test_from_python_a_shard_gives_no_rows(series: Path, tmp_path: Path) -> None:
    for n in (1, 2):
        table = rs.analyze(series, out=tmp_path, components="weight", jobs=1, shard=f"{n}/2")
        assert table.empty and "per" in table
    assert len(rs.analyze(series, out=tmp_path, components="weight", jobs=1)) == 12
