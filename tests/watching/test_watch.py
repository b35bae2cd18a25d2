"""Watching ends with the table of `analyze`, whatever happens to the checkpoints meanwhile."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import rankscope as rs
from rankscope.analysis.request import Selection
from rankscope.checkpoints.discovery import survey
from rankscope.durable import write_folder
from rankscope.errors import RankscopeWarning, WrongSettingError
from rankscope.watching import watch as watching
from rankscope.watching.readiness import Readiness
from rankscope.watching.watch import Watch
from tests.analysis.series import Inline, analysed, weights, write_step
from tests.conftest import write_relora_run

TABLES = ("metrics.csv", "metrics.parquet", "skipped.jsonl")


class Clock:
    """Time that passes only while somebody sleeps, and what happens then."""

    def __init__(self) -> None:
        self.now, self.events = 0.0, list[object]()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        if self.events and (event := self.events.pop(0)) is not None:
            event()  # type: ignore[operator]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(watching.time, "monotonic", clock.monotonic)
    monkeypatch.setattr(watching.time, "sleep", clock.sleep)
    return clock


def watch(*paths: Path, out: Path, idle: float = 100.0, steps: str | None = None) -> Watch:
    selection = Selection.of(components=("weight", "update", "merged_total"), steps=steps)
    return Watch(list(paths), out, selection, survey, Inline, poll=10.0, idle=idle)


def seen(watched: Watch) -> list[tuple[str, int]]:
    return [(one.run, one.step) for one in watched]


def assert_same_tables(out: Path, run: Path, other: Path) -> None:
    analysed(run, "weight", "update", "merged_total", out=other)
    for name in TABLES:
        assert (out / name).read_bytes() == (other / name).read_bytes()


def manifest(folder: Path) -> None:
    """Make a checkpoint one of rankscope's trainer."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    write_folder(folder, files, kind="rankscope-checkpoint-1")


def test_checkpoints_are_measured_as_they_appear(
    tmp_path: Path, clock: Clock, rng: np.random.Generator
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    values = {step: weights(rng) for step in (10, 20, 30)}
    clock.events = [
        lambda: write_step(run, 10, values[10]),
        None,
        lambda: write_step(run, 20, values[20]),
        lambda: write_step(run, 30, values[30]),
    ]
    watched, told = watch(run, out=out), list[tuple[float, int, int]]()
    with pytest.warns(RankscopeWarning, match="waiting for its first checkpoint"):
        for one in watched:
            rows = rs.open_results(out).metrics
            told.append((clock.now, one.step, len(rows)))
    # Each is seen at 10 s, 30 s, 40 s, and is complete when it has not changed for 10 more.
    assert told == [(20.0, 10, 4), (40.0, 20, 12), (50.0, 30, 20)]
    assert clock.now == 150.0  # nothing new for 100 s
    assert_same_tables(out, run, tmp_path / "other")


def test_what_the_folder_holds_already_is_not_measured_again(
    tmp_path: Path, clock: Clock, rng: np.random.Generator
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    for step in (10, 20):
        write_step(run, step, weights(rng))
    first = iter(watch(run, out=out))
    assert [next(first).step, next(first).step] == [10, 20]
    first.close()  # killed
    clock.events = [None, lambda: write_step(run, 30, weights(rng))]
    again = watch(run, out=out)
    assert seen(again) == [("run", 30)]
    assert again.analysis is not None and again.analysis.computed == 8
    assert_same_tables(out, run, tmp_path / "other")


def test_a_half_written_checkpoint_is_not_read_before_it_is_whole(
    tmp_path: Path, clock: Clock, rng: np.random.Generator
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    write_step(run, 10, weights(rng))
    whole = write_step(tmp_path / "elsewhere", 20, weights(rng)) / "model.safetensors"
    half = run / "checkpoint-20" / "model.safetensors"

    def grow(size: int) -> None:
        half.parent.mkdir(exist_ok=True)
        half.write_bytes(whole.read_bytes()[:size])

    def check() -> None:
        assert (out / "skipped.jsonl").read_text() == ""

    clock.events = [lambda: grow(100), lambda: grow(2000), None, check, lambda: grow(10**6), check]
    told = [(clock.now, one.step) for one in watch(run, out=out)]
    assert told == [(10.0, 10), (60.0, 20)]
    assert_same_tables(out, run, tmp_path / "other")


def test_a_checkpoint_is_complete_when_its_files_have_not_changed_for_long_enough(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    folder = write_step(tmp_path / "run", 10, weights(rng))
    (checkpoint,) = rs.open_run(tmp_path / "run")
    readiness = Readiness(settle=10.0)
    assert [readiness.is_ready(checkpoint, now) for now in (0.0, 9.0, 10.0)] == [False, False, True]
    (folder / "trainer_state.json").write_text("{}")
    assert [readiness.is_ready(checkpoint, now) for now in (11.0, 20.0, 21.0)] == [
        *(False, False, True),
    ]
    (folder / "model.safetensors").write_bytes(b"x" * 3000)
    assert [readiness.is_ready(checkpoint, now) for now in (30.0, 89.0, 90.0)] == [
        *(False, False, True),
    ]


def test_a_damaged_checkpoint_is_named_in_the_end(
    tmp_path: Path, clock: Clock, rng: np.random.Generator
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    for step in (10, 20):
        write_step(run, step, weights(rng))
    damaged = run / "checkpoint-20" / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:2000])
    assert seen(watch(run, out=out)) == [("run", 10)]
    assert "is cut short" in (out / "skipped.jsonl").read_text()
    assert_same_tables(out, run, tmp_path / "other")


def test_a_missing_shard_is_waited_for(
    tmp_path: Path, clock: Clock, rng: np.random.Generator
) -> None:
    from safetensors.numpy import save_file

    folder = tmp_path / "run" / "checkpoint-10"
    folder.mkdir(parents=True)
    names = list(weights(rng))
    where = {name: f"model-0000{i // 2 + 1}-of-00002.safetensors" for i, name in enumerate(names)}
    index = {"weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    tensors = weights(rng)

    def write(shard: str) -> None:
        save_file({n: tensors[n] for n in names if where[n] == shard}, folder / shard)

    first, last = dict.fromkeys(where.values())
    write(first)
    clock.events = [None, None, lambda: write(last)]
    told = [(clock.now, len(one.rows)) for one in watch(tmp_path / "run", out=tmp_path / "out")]
    assert told == [(40.0, 4)]


def test_removed_checkpoints_keep_their_rows(
    tmp_path: Path, clock: Clock, rng: np.random.Generator
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    values = {step: weights(rng) for step in (10, 20, 30, 40)}
    for step in (10, 20):
        write_step(run, step, values[step])

    def rotate(new: int, old: int) -> None:
        write_step(run, new, values[new])
        shutil.rmtree(run / f"checkpoint-{old}")

    clock.events = [None, lambda: rotate(30, 10), None, None, lambda: rotate(40, 20)]
    assert [step for _, step in seen(watch(run, out=out))] == [10, 20, 30, 40]
    for step in (10, 20):
        write_step(run, step, values[step])
    analysed(run, "weight", "update", "merged_total", out=tmp_path / "other")
    table, whole = (rs.open_results(where).metrics for where in (out, tmp_path / "other"))
    earlier = [name for name in table if name.startswith("update_cosine")]  # of two checkpoints ago
    assert table.drop(columns=earlier).equals(whole.drop(columns=earlier))
    record = json.loads((out / "analysis.json").read_text())
    assert record["notes"][-1]["message"].startswith("the checkpoints of steps 10, 20 are gone")
    assert record["key"] is None  # `analyze` measures what is there


def test_what_was_measured_before_a_checkpoint_was_removed_stays(
    tmp_path: Path, clock: Clock, rng: np.random.Generator
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    for step in (10, 20, 30, 40):
        write_step(run, step, weights(rng))
    clock.events = [None, None, lambda: shutil.rmtree(run / "checkpoint-10")]
    watched = iter(watch(run, out=out))
    assert [next(watched).step for _ in range(4)] == [10, 20, 30, 40]
    before = (out / "metrics.csv").read_bytes()
    assert next(watched, None) is None
    assert (out / "metrics.csv").read_bytes() == before


def test_a_merge_without_its_checkpoint_does_not_cost_the_rows_of_the_checkpoint(
    tmp_path: Path, clock: Clock, rng: np.random.Generator
) -> None:
    run, out = write_relora_run(tmp_path / "relora", rng).path, tmp_path / "out"
    for folder in (run / "checkpoints").iterdir():
        manifest(folder)
    analysed(run, "weight", "update", "merged_total", out=tmp_path / "other")
    later = tmp_path / "later"
    later.mkdir()

    def move(name: str, there: Path, here: Path) -> None:
        shutil.move(there / name, here / name)

    checkpoints, merges = run / "checkpoints", run / "merges"
    move("step-00000020.safetensors", merges, later)
    for step in (20, 30):
        move(f"step-000000{step}", checkpoints, later)

    def rotate() -> None:  # the merge of step 20 comes after its checkpoint is gone
        move("step-00000020", later, checkpoints)
        shutil.rmtree(checkpoints / "step-00000010")

    def rotate_again() -> None:
        move("step-00000030", later, checkpoints)
        shutil.rmtree(checkpoints / "step-00000020")
        move("step-00000020.safetensors", later, merges)

    clock.events = [rotate, rotate_again]
    seen(watch(run, out=out, idle=25.0))
    table, whole = (rs.open_results(where).metrics for where in (out, tmp_path / "other"))
    updates = table[table["component"] == "update"]
    # Each came when the one before was gone.
    assert updates.groupby("step")["since"].first().to_dict() == {10: 0, 20: 0, 30: 0}
    shown = [
        one.loc[one["component"] != "update", ["step", "component", "name", "per", "nuclear_norm"]]
        for one in (table, whole)
    ]
    assert shown[0].reset_index(drop=True).equals(shown[1].reset_index(drop=True))


def test_rows_of_another_training_are_not_kept(
    tmp_path: Path, clock: Clock, rng: np.random.Generator
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    for step in (10, 20, 30):
        write_step(run, step, weights(rng))
    seen(watch(run, out=out))
    shutil.rmtree(run)
    write_step(run, 10, weights(rng))
    seen(watch(run, out=out))  # its table went further
    assert rs.open_results(out).metrics["step"].unique().tolist() == [10]
    write_step(run, 20, weights(rng))
    seen(watch(run, out=out))
    shutil.rmtree(run)
    for step in (10, 30):
        write_step(run, step, weights(rng))
    seen(watch(run, out=out))  # step 10 has other values
    assert rs.open_results(out).metrics["step"].unique().tolist() == [10, 30]


@pytest.mark.slow
def test_a_run_of_the_trainer_ends_the_watch(
    tmp_path: Path, clock: Clock, rng: np.random.Generator
) -> None:
    run = write_relora_run(tmp_path / "relora", rng)
    for folder in (run.path / "checkpoints").iterdir():
        manifest(folder)
    (run.path / "config.toml").write_text("[schedule]\nsteps = 30\n")
    out = tmp_path / "out"
    assert [step for _, step in seen(watch(run.path, out=out))] == [0, 10, 20, 30]
    assert clock.now == 0.0  # its checkpoints are complete when they appear
    assert_same_tables(out, run.path, tmp_path / "other")
    (run.path / "config.toml").write_text("[schedule]\nsteps = 40\n")
    assert seen(watch(run.path, out=out)) == [] and clock.now == 100.0
    (run.path / "metrics.jsonl").write_text('{"step": 30, "event": "non-finite"}\n')
    assert seen(watch(run.path, out=out)) == [] and clock.now == 100.0
    assert seen(watch(tmp_path, out=tmp_path / "all")) and clock.now > 100.0  # may get another run


def test_a_file_that_changes_while_it_is_read_is_read_again(
    tmp_path: Path, clock: Clock, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    write_step(run, 10, weights(rng))
    new = weights(rng)

    class Slow(Inline):
        def run(self, jobs: Iterator[object]) -> Iterator[object]:  # type: ignore[override]
            for done in super().run(jobs):  # type: ignore[arg-type]
                if not written:
                    written.append(write_step(run, 10, new))
                yield done

    written: list[Path] = []
    watched = watch(run, out=out)
    watched.engine = Slow
    seen(watched)
    assert_same_tables(out, run, tmp_path / "other")


def test_steps_that_were_not_asked_for_are_not_waited_for(
    tmp_path: Path, clock: Clock, rng: np.random.Generator
) -> None:
    for step in (10, 20):
        write_step(tmp_path / "run", step, weights(rng))
    watched = watch(tmp_path / "run", out=tmp_path / "out", steps="20:")
    assert seen(watched) == [("run", 20)]
    assert seen(watch(tmp_path / "run", out=tmp_path / "two", steps="50:")) == []


@pytest.mark.parametrize(
    "settings", [{"poll": 0}, {"idle": -1}, {"layout": "x"}, {"roles": "x"}, {"engine": "x"}]
)
def test_wrong_settings_are_named_at_once(settings: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(WrongSettingError):
        rs.watch(tmp_path / "later", out=tmp_path / "out", **settings)  # type: ignore[arg-type]
