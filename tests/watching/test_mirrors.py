"""Chosen columns elsewhere: TensorBoard's own reader, and stand-ins for the others."""

import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import rankscope as rs
from rankscope.errors import WrongSettingError
from rankscope.watching import mirrors as mirrors_module
from rankscope.watching.kept_rows import iter_table
from rankscope.watching.mirrors import open_mirrors, scalars_of
from tests.analysis.series import analysed, weights, write_step


@pytest.fixture
def out(tmp_path: Path, rng: np.random.Generator) -> Path:
    for step in (10, 20, 30):
        write_step(tmp_path / "run", step, weights(rng))
    analysed(tmp_path / "run", out=tmp_path / "out")
    return tmp_path / "out"


def means(out: Path, step: int) -> dict[str, float]:
    """Mean PER by component and role, straight from the table."""
    rows = rs.open_results(out).metrics.query("step == @step")
    per = rows.groupby(["component", "role"])["per"].mean()
    return {f"{component}/per/{role}": value for (component, role), value in per.items()}


def points(out: Path, tag: str) -> list[tuple[int, float]]:
    """What TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(out / "tensorboard" / "run"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_scalars_are_means_over_layers(out: Path) -> None:
    for (_, step), rows in iter_table(out):
        assert scalars_of(rows, ["per"]) == pytest.approx(means(out, step))


def test_bounds_and_unknown_values_are_no_scalars(out: Path) -> None:
    rows = dict(iter_table(out))["run", 10]
    for row in rows:
        row |= {"condition_number": math.inf, "per": None}
    assert scalars_of(rows, ["condition_number", "per"]) == {}
    for row in rows:
        row |= {"condition_number": 9.0, "condition_number_status": "lower-bound"}
    assert scalars_of(rows, ["condition_number"]) == {}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_reads_what_was_written(out: Path) -> None:
    pytest.importorskip("tensorboard")
    expected = [(step, means(out, step)["weight/per/up"]) for step in (10, 20, 30)]
    for _ in range(2):  # a second call replaces what the first wrote
        with open_mirrors("tensorboard", out=out, columns="per,numerical_rank") as mirrors:
            assert mirrors is not None
        shown = points(out, "weight/per/up")
        assert [step for step, _ in shown] == [10, 20, 30]
        assert [value for _, value in shown] == pytest.approx([x for _, x in expected], rel=1e-6)
    assert points(out, "update/numerical_rank/down") == [(20, 16.0), (30, 16.0)]


class Stand:
    """A stand-in for the packages of wandb and trackio: keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def init(self, **settings: Any) -> "Stand":
        self.calls.append(("init", settings))
        return self

    def define_metric(self, name: str, *, step_metric: str) -> None:
        self.calls.append(("define_metric", (name, step_metric)))

    def log(self, values: dict[str, float], *, step: int | None = None) -> None:
        self.calls.append(("log", values if step is None else values | {"step": step}))

    def finish(self) -> None:
        self.calls.append(("finish", None))


@pytest.mark.parametrize("kind", ["wandb", "trackio"])
def test_the_others_are_told_every_step(
    kind: Any, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand, module = Stand(), ModuleType(kind)
    module.init = stand.init  # type: ignore[attr-defined]
    module.Settings = dict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, kind, module)
    monkeypatch.setattr(mirrors_module, "require_mirror", lambda name: None)
    with open_mirrors(kind, out=out, columns="per") as mirrors:
        assert mirrors is not None
        mirrors.write("other", 5, dict(iter_table(out))["run", 30])
    starts = [settings for name, settings in stand.calls if name == "init"]
    assert [one["name"] for one in starts] == ["run", "other"]
    assert all(one["project"] == "rankscope" and one["resume"] == "allow" for one in starts)
    logged = [values for name, values in stand.calls if name == "log"]
    assert [values["step"] for values in logged] == [10, 20, 30, 5]
    assert {**logged[0]} == pytest.approx(means(out, 10) | {"step": 10})
    assert [name for name, _ in stand.calls[-2:]] == ["finish", "finish"]


def test_a_missing_package_is_one_line_with_what_to_install(out: Path) -> None:
    for kind in ("wandb", "trackio"):
        with (
            pytest.raises(WrongSettingError, match=rf'`to` {kind}.*"rankscope\[{kind}\]"'),
            open_mirrors(kind, out=out),  # type: ignore[arg-type]
        ):
            pass


@pytest.mark.parametrize("settings", [{"kind": "mlflow"}, {"kind": None, "columns": "nonsense"}])
def test_unknown_names_are_refused(settings: dict[str, Any], tmp_path: Path) -> None:
    with (
        pytest.raises(WrongSettingError, match="choose from"),
        open_mirrors(out=tmp_path, **settings),
    ):
        pass
