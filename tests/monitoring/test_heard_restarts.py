"""A monitor hears of the restarts of `rankscope.relora`, once each, whatever becomes of it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import rankscope as rs
from rankscope.errors import RankscopeWarning
from rankscope.folder_lock import locked
from tests.monitoring.test_recorder_process import until
from tests.monitoring.training import WIDTH, adamw

pytest.importorskip("peft")
from rankscope import relora

SETTINGS: dict[str, Any] = {
    "every": 1, "share": None, "components": "update,cumulative_update", "nice": 0
}  # fmt: skip


def wrapped() -> Any:
    torch.manual_seed(0)
    return relora.wrap(nn.Sequential(nn.Linear(WIDTH, WIDTH)), rank=2, seed=1)


def train(model: nn.Module, monitor: rs.Monitor, steps: range, *, every: int = 2) -> None:
    optimizer = adamw(model)
    for step in steps:
        if step:
            model(torch.ones(2, WIDTH)).square().mean().backward()
            optimizer.step()
        monitor.step(step)
        if step and step % every == 0:
            relora.restart(model, optimizer)
        optimizer.zero_grad()


def windows(out: Path) -> dict[int, tuple[str, int]]:
    """Kind of the cumulative change and its restarts, by step."""
    table = rs.open_results(out).metrics
    rows = table[table["component"] == "cumulative_update"]
    kinds = zip(rows["window"], rows["restarts"].astype(int), strict=True)
    return dict(zip(rows["step"], kinds, strict=True))


@pytest.mark.parametrize("watched", ["wrapped", "plain", "outer", "compiled"])
def test_whichever_module_of_the_model_it_watches(tmp_path: Path, here: None, watched: str) -> None:
    """The steps of the restarts are not stated: it is the last one that the monitor heard of."""
    model = wrapped()
    seen = {
        "wrapped": model,
        "plain": model.get_base_model(),
        "outer": nn.ModuleDict({"inner": model}),
        "compiled": torch.compile(model, backend="eager"),
    }[watched]
    with rs.Monitor(seen, tmp_path / "out", **SETTINGS) as monitor:
        train(model, monitor, range(6))
    assert rs.open_results(tmp_path / "out").restarts == {"run": [2, 4]}
    assert windows(tmp_path / "out") == {
        1: ("within", 0), 2: ("cycle", 0), 3: ("across", 1), 4: ("across", 1), 5: ("across", 2)
    }  # fmt: skip


def test_it_counts_a_restart_once_and_only_of_its_model(tmp_path: Path, here: None) -> None:
    model, other = wrapped(), wrapped()
    with rs.Monitor(model, tmp_path / "out", **SETTINGS) as monitor:
        for step in range(4):
            monitor.step(step)
            if step == 1:
                relora.restart(model, step=step)
                relora.restart(other, step=step + 1)
                monitor.restarted(step)  # as one had to
    relora.restart(model, step=4)  # after it is closed
    assert rs.open_results(tmp_path / "out").restarts == {"run": [1]}
    assert windows(tmp_path / "out")[3] == ("across", 1)


def test_restarts_between_two_measurements_all_count(tmp_path: Path, here: None) -> None:
    model = wrapped()
    with rs.Monitor(model, tmp_path / "out", **{**SETTINGS, "every": 6}) as monitor:
        train(model, monitor, range(7))
    assert rs.open_results(tmp_path / "out").restarts == {"run": [2, 4, 6]}
    assert windows(tmp_path / "out") == {6: ("across", 2)}


def test_a_run_that_goes_on_after_its_restart_still_has_had_it(tmp_path: Path, here: None) -> None:
    """The state of step 2 is from after the merge, as the Trainer saves it."""
    model = wrapped()
    with rs.Monitor(model, tmp_path / "out", **SETTINGS) as monitor:
        train(model, monitor, range(4))
    monitor = rs.Monitor(model, tmp_path / "out", **SETTINGS)
    monitor.step(2)
    train(model, monitor, range(3, 6))
    with pytest.warns(RankscopeWarning, match="at step 2 to 3 are replaced"):
        monitor.close()
    assert rs.open_results(tmp_path / "out").restarts == {"run": [2, 4]}
    assert windows(tmp_path / "out")[3] == ("across", 1)


@pytest.mark.slow
def test_a_killed_recorder_is_started_again_and_knows_of_restarts(tmp_path: Path) -> None:
    model = wrapped()
    monitor = rs.Monitor(
        model, tmp_path / "out", **{**SETTINGS, "components": "weight,update,cumulative_update"}
    )
    train(model, monitor, range(2))
    recorder = monitor._recorder
    assert recorder is not None
    until(lambda: not recorder.waiting)
    os.kill(recorder._process.pid, signal.SIGKILL)
    until(lambda: not recorder.is_alive)
    relora.restart(model, step=1)  # while there is none
    with pytest.warns(RankscopeWarning, match="its recorder process died"):
        train(model, monitor, range(2, 4), every=9)
    monitor.close()
    assert rs.open_results(tmp_path / "out").restarts == {"run": [1]}
    assert windows(tmp_path / "out")[3] == ("across", 1)
    rows = rs.open_results(tmp_path / "out").metrics
    assert "update" not in set(rows[rows["step"] == 2]["component"])  # it has no start
    assert rows[rows["component"] == "update"].groupby("step")["since"].first()[3] == 2


@pytest.mark.slow
def test_a_second_monitor_of_a_folder_measures_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with locked(out, kind="monitor", who="monitor"):
        monitor = rs.Monitor(wrapped(), out, **SETTINGS)
        monitor.step(0)
        recorder = monitor._recorder
        assert recorder is not None
        until(lambda: not recorder.is_alive)
        with pytest.warns(RankscopeWarning, match=rf"monitor \(pid {os.getpid()}\) writes here"):
            monitor.step(1)
        assert not monitor._snapshots.folder.exists()
        monitor.step(2)
        monitor.close()
        assert sorted(path.name for path in out.iterdir()) == ["monitor.lock", "monitor.pid"]
