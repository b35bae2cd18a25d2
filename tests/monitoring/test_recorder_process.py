"""The recorder as a process: it ends with its parent, and what dies costs the matrix in hand."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

import rankscope as rs
from rankscope.monitoring.monitor import WAITING_BYTES
from tests.monitoring.training import adamw, backward, small

pytestmark = pytest.mark.slow
HERE = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
PROGRAM = """
import sys, time, rankscope as rs
from tests.monitoring.training import adamw, backward, small
model = small(layers=1)
optimizer = adamw(model)
monitor = rs.Monitor(
    model, sys.argv[1], every=1, share=None, components="weight,update", scratch=sys.argv[2], nice=0
)
for step in range(1000):
    backward(model, step)
    optimizer.step()
    monitor.step(step)
    optimizer.zero_grad()
    print(monitor._recorder._process.pid, flush=True)
    time.sleep(0.02)
"""


def is_alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return b") Z" not in Path(f"/proc/{number}/stat").read_bytes()


def until(what: object, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not what():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.05)


def test_as_in_one_process(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    tables = []
    for number in range(2):
        model = small(layers=1)
        optimizer = adamw(model)
        if number:
            request.getfixturevalue("here")
        device = None if number else "cpu"
        settings = {"every": 1, "share": None, "nice": 0, "device": device}
        with rs.Monitor(model, tmp_path / str(number), **settings) as monitor:  # type: ignore[arg-type]
            for step in range(3):
                backward(model, step)
                optimizer.step()
                monitor.step(step)
                optimizer.zero_grad()
        tables.append(rs.open_results(tmp_path / str(number)).metrics)
    exact = ["step", "component", "name", "numerical_rank", "status", "max_rank"]
    pd.testing.assert_frame_equal(tables[0][exact], tables[1][exact])
    assert (tables[0]["per"] - tables[1]["per"]).abs().max() < 1e-9
    assert len(tables[0]) == 5 * (3 + 2 + 3)


def test_a_killed_training_takes_its_recorder_with_it(tmp_path: Path, scratch: Path) -> None:
    out = tmp_path / "out"
    training = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(out), str(scratch)],
        stdout=subprocess.PIPE, env=HERE, cwd=HERE["PYTHONPATH"], text=True,
    )  # fmt: skip
    assert training.stdout is not None
    number = int(training.stdout.readline())
    until(lambda: len([*out.glob("spectra/run/*.safetensors")]) > 3)
    training.kill()
    training.wait()
    training.stdout.close()
    until(lambda: not is_alive(number))
    assert not any(scratch.iterdir())
    stored = len([*out.glob("spectra/run/*.safetensors")])
    assert rs.open_results(out).metrics["step"].nunique() == stored


def test_a_slow_recorder_costs_measurements_not_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: None
) -> None:
    """The recorder of `here` measures nothing before it is closed."""
    model = small(layers=2)
    size = sum(p.nbytes for p in model.parameters())
    monkeypatch.setattr("rankscope.monitoring.monitor.WAITING_BYTES", 3 * size)
    assert 3 * size < WAITING_BYTES
    with rs.Monitor(model, tmp_path / "out", every=1, share=None, components="weight") as monitor:
        for step in range(10):
            monitor.step(step)
        held = sum(f.stat().st_size for f in monitor._snapshots.folder.iterdir())
        assert 2 * size < held <= 3 * size
    table = rs.open_results(tmp_path / "out").metrics
    assert table["name"].value_counts().between(2, 4).all()
    record = (tmp_path / "out" / "analysis.json").read_text()
    assert "steps have 0 to" in record and "of 10 matrices, in turn" in record
