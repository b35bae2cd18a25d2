from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.training.config import Config
from rankscope.training.run_folder.metrics_log import MetricsLog
from rankscope.training.run_folder.tracking import (
    Trackers,
    numbers_of,
    open_trackers,
    require_trackers,
)

MakeConfig = Callable[..., Config]
Curves = Mapping[str, list[tuple[int, float]]]
STEPS = 9


class FakeWandb(ModuleType):
    """A server that keeps what it is sent, by run; ``broken`` names a call that fails."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.__spec__ = ModuleSpec("wandb", None, origin="fake")
        self.runs: dict[str, list[dict[str, float]]] = {}
        self.begun: list[dict[str, Any]] = []
        self.axes: list[tuple[str, str]] = []
        self.finished = 0
        self.broken = ""

    def Settings(self, *, console: str) -> str:
        return console

    def init(self, **settings: Any) -> FakeWandb:
        self._maybe_fail("init")
        self.begun.append(settings)
        self.id: str = settings["id"] or f"run-{len(self.runs)}"
        self.runs.setdefault(self.id, [])
        return self

    def define_metric(self, name: str, *, step_metric: str) -> None:
        self._maybe_fail("define_metric")
        self.axes.append((name, step_metric))

    def log(self, values: dict[str, float]) -> None:
        self._maybe_fail("log")
        self.runs[self.id].append(values)

    def finish(self) -> None:
        self._maybe_fail("finish")
        self.finished += 1

    def curves(self, run: str) -> Curves:
        found: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for line in self.runs[run]:
            for name in line.keys() - {"step"}:
                found[name].append((int(line["step"]), line[name]))
        return found

    def _maybe_fail(self, call: str) -> None:
        if call == self.broken:
            raise ConnectionError("no\nroute")


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


def tensorboard_curves(run: Path) -> Curves:
    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    tags = events.Tags()["scalars"]
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags}


def log_curves(run: Path) -> Curves:
    found: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for line in (run / "metrics.jsonl").read_text().splitlines():
        values = json.loads(line)
        step = values.pop("step")
        for name, number in numbers_of(values).items():
            found[name].append((step, number))
    return found


def distinct(curves: Curves) -> Curves:
    """A point drawn twice is one point."""
    return {name: sorted(set(points)) for name, points in curves.items()}


def must_not_warn(warning: str) -> None:
    raise AssertionError(warning)


def log_steps(config: Config, start: int, stop: int, warn: Any = must_not_warn) -> None:
    """Log as a training does from one step up to another, whose state is the last it writes."""
    run = Path(config.out)
    MetricsLog(run).rewind(start or -1)
    with open_trackers(config, step=start, warn=warn) as trackers:
        log = MetricsLog(run, trackers.write)
        if start == 0:
            log.write(0, validation_loss=9.0)
        for step in range(start, stop):
            if step % 4 == 3:
                log.write(step, event="restart", restart=step // 4, loss_before=0.5)
            log.write(step, loss=step / 4, tokens=8 * step, grad_norm=float("nan"))
            if (step + 1) % 3 == 0:
                log.write(step + 1, validation_loss=step / 8)


def let_time_pass(run: Path) -> None:
    """TensorBoard reads event files in the order of the seconds that they were begun in."""
    for n, file in enumerate(sorted((run / "tensorboard").glob("events.*"))):
        file.rename(file.with_name(f"events.out.tfevents.{n:010d}"))


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        ({"loss": 1.5, "tokens": 3}, {"loss": 1.5, "tokens": 3}),
        ({"loss": "nan", "grad_norm": "inf"}, {}),
        ({"event": "restart", "restart": 2}, {"restart/restart": 2}),
        ({"event": "non-finite", "reason": "why"}, {}),
    ],
)
def test_numbers_keep_their_names_and_those_of_events_follow_theirs(
    values: dict[str, Any], numbers: dict[str, float]
) -> None:
    assert numbers_of(values) == numbers


def test_tensorboard_shows_every_number_of_the_log(make_config: MakeConfig, run: Path) -> None:
    log_steps(make_config({"log.tensorboard": True}), 0, STEPS)
    assert tensorboard_curves(run) == log_curves(run)
    assert {"loss", "tokens", "validation_loss", "restart/loss_before"} <= log_curves(run).keys()


def test_wandb_shows_every_number_of_the_log(
    make_config: MakeConfig, run: Path, wandb: FakeWandb
) -> None:
    log_steps(make_config({"log.wandb": "study"}), 0, STEPS)
    assert wandb.curves("run-0") == log_curves(run)
    assert wandb.axes == [("*", "step")]
    assert wandb.finished == 1
    assert wandb.begun[0]["project"] == "study"
    assert wandb.begun[0]["config"]["schedule.steps"] == 18


@pytest.mark.parametrize("resumed_at", [0, 3, 6])
@pytest.mark.parametrize("reached", [6, 8])
def test_tensorboard_shows_a_resumed_run_as_if_it_had_not_stopped(
    make_config: MakeConfig, run: Path, resumed_at: int, reached: int
) -> None:
    config = make_config({"log.tensorboard": True})
    log_steps(config, 0, reached)
    let_time_pass(run)
    log_steps(config, resumed_at, STEPS)
    assert tensorboard_curves(run) == log_curves(run)


def test_what_a_killed_process_logged_is_in_tensorboard(make_config: MakeConfig, run: Path) -> None:
    config = make_config({"log.tensorboard": True})
    MetricsLog(run).rewind(-1)
    with open_trackers(config, step=0, warn=must_not_warn) as trackers:
        MetricsLog(run, trackers.write).write(0, loss=1.0)
        assert tensorboard_curves(run) == {"loss": [(0, 1.0)]}


def test_wandb_goes_on_with_the_same_run_and_lacks_nothing(
    make_config: MakeConfig, run: Path, wandb: FakeWandb
) -> None:
    config = make_config({"log.wandb": "study"})
    log_steps(config, 0, 6)
    log_steps(config, 6, STEPS)
    assert [settings["id"] for settings in wandb.begun] == [None, "run-0"]
    assert {settings["resume"] for settings in wandb.begun} == {"allow"}
    assert distinct(wandb.curves("run-0")) == log_curves(run)


def test_what_a_kill_may_have_lost_is_sent_to_wandb_again(
    make_config: MakeConfig, run: Path, wandb: FakeWandb
) -> None:
    config = make_config({"log.wandb": "study"})
    log_steps(config, 0, 3)
    wandb.broken = "finish"
    log_steps(config, 3, 8, lambda _: None)
    del wandb.runs["run-0"][-5:]
    wandb.broken = ""
    log_steps(config, 6, STEPS)
    shown = wandb.curves("run-0")
    assert distinct(shown) == log_curves(run)
    assert shown["loss"].count((1, 0.25)) == 1  # finished: not sent again


def test_wandb_gets_what_was_logged_while_it_was_off(
    make_config: MakeConfig, run: Path, wandb: FakeWandb
) -> None:
    config = make_config({"log.wandb": "study"})
    log_steps(config, 0, 3)
    log_steps(make_config(), 3, 6)
    log_steps(config, 6, STEPS)
    assert distinct(wandb.curves("run-0")) == log_curves(run)


def test_a_mirror_switched_on_later_gets_the_whole_log(
    make_config: MakeConfig, run: Path, wandb: FakeWandb
) -> None:
    log_steps(make_config(), 0, 6)
    assert [path.name for path in run.iterdir()] == ["metrics.jsonl"]
    log_steps(make_config({"log.tensorboard": True, "log.wandb": "study"}), 6, STEPS)
    assert tensorboard_curves(run) == wandb.curves("run-0") == log_curves(run)


def test_another_project_gets_a_run_of_its_own(
    make_config: MakeConfig, run: Path, wandb: FakeWandb
) -> None:
    log_steps(make_config({"log.wandb": "study"}), 0, 3)
    log_steps(make_config({"log.wandb": "another"}), 3, STEPS)
    assert wandb.curves("run-1") == log_curves(run)


def test_the_log_does_not_depend_on_its_mirrors(
    make_config: MakeConfig, run: Path, wandb: FakeWandb
) -> None:
    log_steps(make_config(), 0, STEPS)
    without = (run / "metrics.jsonl").read_bytes()
    log_steps(make_config({"log.tensorboard": True, "log.wandb": "study"}), 0, STEPS)
    assert (run / "metrics.jsonl").read_bytes() == without


@pytest.mark.parametrize("call", ["init", "define_metric", "log", "finish"])
def test_a_failing_mirror_is_one_warning(
    make_config: MakeConfig, run: Path, wandb: FakeWandb, call: str
) -> None:
    wandb.broken = call
    warnings: list[str] = []
    config = make_config({"log.tensorboard": True, "log.wandb": "study"})
    log_steps(config, 0, STEPS, warnings.append)
    assert warnings == [
        "log.wandb failed, and is off until the next start: ConnectionError: no\\nroute"
    ]
    assert tensorboard_curves(run) == log_curves(run)


def test_a_folder_that_tensorboard_cannot_write_is_a_warning(
    make_config: MakeConfig, run: Path
) -> None:
    (run / "tensorboard").touch()
    warnings: list[str] = []
    log_steps(make_config({"log.tensorboard": True}), 0, STEPS, warnings.append)
    assert len(warnings) == 1
    assert log_curves(run)


def test_mirrors_are_finished_when_the_training_is_interrupted(
    make_config: MakeConfig, run: Path, wandb: FakeWandb
) -> None:
    MetricsLog(run).rewind(-1)
    config = make_config({"log.wandb": "study"})
    with pytest.raises(KeyboardInterrupt), open_trackers(config, step=0, warn=must_not_warn):
        raise KeyboardInterrupt
    assert wandb.finished == 1


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("tensorboard", True, "log.tensorboard = true needs tensorboard: pip install "),
        ("wandb", "study", "log.wandb = 'study' needs wandb: pip install "),
    ],
)
@pytest.mark.parametrize("folder", [False, True], ids=["absent", "folder of its name"])
def test_a_missing_package_is_named_before_anything_is_written(
    make_config: MakeConfig,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    value: object,
    message: str,
    folder: bool,
) -> None:
    if folder:
        (run.parent / "cwd" / setting).mkdir(parents=True)
        monkeypatch.delitem(sys.modules, setting, raising=False)
        monkeypatch.setattr(sys, "path", [str(run.parent / "cwd")])
    else:
        monkeypatch.setitem(sys.modules, setting, None)
    config = make_config({f"log.{setting}": value})
    for raising in (
        lambda: require_trackers(config.log),
        lambda: open_trackers(config, step=0, warn=must_not_warn).__enter__(),
    ):
        with pytest.raises(RankscopeError) as caught:
            raising()
        assert str(caught.value) == f"{message}'rankscope[{setting}]'"
    assert not list(run.iterdir())


def test_packages_of_mirrors_that_are_off_are_not_asked_for(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorboard", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)
    require_trackers(make_config().log)
    with pytest.raises(WrongSettingError, match=r"needs wandb: pip install"):
        require_trackers(make_config({"log.wandb": "study"}).log)


def test_a_dropped_mirror_is_not_called_again() -> None:
    calls: list[int] = []

    def write(step: int, numbers: Mapping[str, float]) -> None:
        calls.append(step)
        raise OSError("full")

    warnings: list[str] = []
    trackers = Trackers(warnings.append)
    mirror = SimpleNamespace(lacks_from=0, write=write, close=must_not_warn)
    trackers.add("log.tensorboard", lambda: mirror, SimpleNamespace(iter_lines=list))  # type: ignore[arg-type]
    for step in range(3):
        trackers.write(step, {"loss": 1.0})
    trackers.close()
    assert (calls, len(warnings)) == ([0], 1)
