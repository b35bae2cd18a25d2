"""Laws of plans and a store, with squares for results."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.file_states import State, state_of
from rankscope.checkpoints.survey import Survey
from rankscope.errors import RankscopeError
from rankscope.pipeline.calls import carried_out
from rankscope.pipeline.engine import Failure, Job
from rankscope.pipeline.execution import Meter, Plan, Plans

NOTE = Skip("here", "", "note", "is worth a line")
NOTHING_MET = Survey((), (), (), ())


@dataclass(frozen=True)
class Square:
    """A number to square; negative ones fail."""

    number: int
    files: tuple[tuple[str, State | None], ...] = ()

    @property
    def key(self) -> str:
        return str(self.number)

    @property
    def work(self) -> float:
        return float(abs(self.number)) or 1.0


@dataclass(frozen=True)
class Entry:
    """A number with its square."""

    key: str
    square: int


class Files:
    """A store of one JSON file per plan."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written: list[str] = []

    def path(self, plan: Plan[Square]) -> Path:
        return self.folder / f"{plan.run}-{plan.step}.json"

    def read(self, path: Path) -> list[Entry]:
        try:
            return [Entry(*one) for one in json.loads(path.read_text())] if path.exists() else []
        except ValueError:
            raise RankscopeError("is damaged", path=path) from None

    def write(self, path: Path, stored: list[Entry], new: list[Entry]) -> None:
        self.written.append(path.stem)
        by_number = {int(entry.key) % 100: entry for entry in stored + new}  # 103 replaces 3
        path.write_text(json.dumps([[entry.key, entry.square] for entry in by_number.values()]))

    def entries(self, task: Square, result: int) -> list[Entry]:
        return [Entry(task.key, result)]

    def failed(self, task: Square, failure: Failure) -> tuple[list[Entry], Skip]:
        return [], Skip(failure.path, task.key, failure.reason, failure.message)

    def fault(self, task: Square, entry: Entry) -> Skip | None:
        return Skip("", task.key, "unlucky", "is no number") if entry.square == 13**2 else None


class Backwards(AbstractContextManager["Backwards"]):
    """Computes everything, and hands it out in the opposite order."""

    def __init__(self) -> None:
        self.computed: list[int] = []

    def run(self, jobs: Iterable[Job[Square]]) -> Iterator[tuple[Job[Square], int | Failure]]:
        for job in reversed(list(jobs)):
            number = job.task.number
            self.computed.append(number)
            is_bad = number < 0
            yield job, Failure("negative", "is negative", "file") if is_bad else number**2

    def __exit__(self, *_: object) -> None:
        return None


def plan(run: str, step: int, *numbers: int) -> Plan[Square]:
    return Plan(run, step, tuple(map(Square, numbers)), notes=(NOTE,))


def done(
    folder: Path, *plans: Plan[Square], shares: list[float] | None = None
) -> tuple[SimpleNamespace, list[list[int]], Backwards, Files]:
    engine, store = Backwards(), Files(folder)
    progress = None if shares is None else lambda share, label: shares.append(share)
    fields, kept = carried_out(
        Plans(plans),
        lambda executed: [entry.square for entry in executed.entries],
        store=store,
        engine=engine,
        meter=Meter(progress, len(plans)),
        found=NOTHING_MET,
    )
    return SimpleNamespace(**fields), kept, engine, store


def test_results_come_in_the_order_of_plans_and_tasks(tmp_path: Path) -> None:
    total, squares, _, store = done(tmp_path, plan("a", 1, 3, 5, 4), plan("a", 2), plan("b", 1, 2))
    assert squares == [[9, 25, 16], [], [4]]
    assert total.computed == 4 and total.notes == (NOTE,) and not total.skips
    assert sorted(store.written) == ["a-1", "b-1"]  # a plan without tasks has no file


def test_only_what_the_store_lacks_is_computed(tmp_path: Path) -> None:
    done(tmp_path, plan("a", 1, 3, 5), plan("a", 2, 6))
    total, squares, engine, store = done(tmp_path, plan("a", 1, 3, 4), plan("a", 2, 6))
    assert squares == [[9, 16], [36]]
    assert engine.computed == [4] and store.written == ["a-1"] and total.computed == 1
    kept = {entry.key for entry in store.read(tmp_path / "a-1.json")}
    assert kept == {"3", "4", "5"}  # what is not asked for stays


def test_a_new_entry_replaces_that_of_the_same_thing(tmp_path: Path) -> None:
    done(tmp_path, plan("a", 1, 3, 5))
    _, squares, _, store = done(tmp_path, plan("a", 1, 103, 5))
    assert squares == [[103**2, 25]]
    assert {entry.key for entry in store.read(tmp_path / "a-1.json")} == {"103", "5"}


def test_a_failure_is_a_skip_that_is_tried_again(tmp_path: Path) -> None:
    for _ in range(2):
        total, squares, engine, _ = done(tmp_path, plan("a", 1, 3, -2))
        assert squares == [[9]] and total.key is None and -2 in engine.computed
        assert total.skips == (Skip("file", "-2", "negative", "is negative"),)


def test_a_fault_of_a_stored_result_is_said_every_time(tmp_path: Path) -> None:
    for count in (1, 0):
        total, _, _, _ = done(tmp_path, plan("a", 1, 13))
        assert [skip.reason for skip in total.skips] == ["unlucky"]
        assert total.computed == count and total.key is not None


def test_a_damaged_file_is_computed_anew_and_named_once(tmp_path: Path) -> None:
    done(tmp_path, plan("a", 1, 3))
    (tmp_path / "a-1.json").write_text("[")
    total, squares, _, _ = done(tmp_path, plan("a", 1, 3))
    (line,) = total.mended
    assert squares == [[9]] and "is damaged" in line.message and "recomputed" in line.message
    assert not done(tmp_path, plan("a", 1, 3))[0].mended


def test_a_file_that_changed_meanwhile_gives_no_result(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_text("old")
    task = Square(3, ((str(path), state_of(path)),))
    path.write_text("newer")
    total, squares, _, store = done(tmp_path, Plan("a", 1, (task,)))
    assert squares == [[]] and not store.written and total.key is None
    assert [(s.path, s.reason) for s in total.skips] == [(str(path), "changed-while-reading")]


def test_progress_rises_to_one(tmp_path: Path) -> None:
    shares: list[float] = []
    done(tmp_path, plan("a", 1, 3, 5), plan("a", 2), plan("a", 3, 7), shares=shares)
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1.0)


def test_the_key_depends_on_every_task_and_line(tmp_path: Path) -> None:
    def key(*plans: Plan[Square], about: object = None) -> str:
        planned = Plans(plans, about)
        list(planned)
        return planned.key

    base = key(plan("a", 1, 3))
    others = [
        key(plan("a", 1, 4)),
        key(plan("a", 2, 3)),
        key(plan("b", 1, 3)),
        key(plan("a", 1, 3), plan("a", 2)),
        key(plan("a", 1, 3), about="x"),
        key(Plan("a", 1, (Square(3),))),
    ]
    assert len({base, *others}) == 7
    assert key(plan("a", 1, 3)) == base
