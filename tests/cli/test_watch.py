"""``rankscope watch``."""

import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

from rankscope.cli.watch import step_line
from rankscope.watching.watch import WatchedStep
from tests.analysis.series import weights, write_step
from tests.cli.test_app import PROGRAM
from tests.reliability.commands import finished_command as rankscope


@pytest.mark.slow
def test_it_prints_a_line_per_step_then_the_summary(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    for step in (10, 20):
        write_step(tmp_path / "run", step, weights(rng))
    done = rankscope(
        "watch", tmp_path / "run", "--out", tmp_path / "out",
        "--poll", 0.2, "--idle", 0.01, "--jobs", 1,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert lines[0].startswith("run  step 10: weight PER 0.") and "; 4 matrices" in lines[0]
    assert "update PER" in lines[1] and lines[2] == "weight: first → last step"
    assert lines[-1] == f"12 matrices → {tmp_path / 'out'}"


@pytest.mark.slow
def test_an_interrupt_keeps_what_was_measured(tmp_path: Path, rng: np.random.Generator) -> None:
    write_step(tmp_path / "run", 10, weights(rng))
    options = ["--out", str(tmp_path / "out"), "--poll", "0.2", "--jobs", "1"]
    process = subprocess.Popen(
        [*PROGRAM, "watch", str(tmp_path / "run"), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and "step 10" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 130 and "what was finished is kept" in stderr
    assert (tmp_path / "out" / "metrics.parquet").is_file()


@pytest.mark.slow
def test_wrong_use_and_nothing_at_all(tmp_path: Path) -> None:
    done = rankscope("watch", tmp_path / "none", "--to", "wandb", cwd=tmp_path)
    assert done.returncode == 2 and "--to wandb needs wandb: pip install" in done.stderr
    done = rankscope("watch", tmp_path / "none", "--poll", 0, cwd=tmp_path)
    assert done.returncode == 2 and "--poll" in done.stderr
    done = rankscope("watch", tmp_path / "none", "--poll", 0.1, "--idle", 0.01, cwd=tmp_path)
    assert done.returncode == 4
    assert done.stderr.splitlines()[-1] == "rankscope: no checkpoint appeared"


def test_the_line_of_a_step_is_of_the_matrices_that_have_a_rank() -> None:
    row = {"run": "r", "step": 3, "component": "weight", "role": "q", "status": "ok", "name": "m"}
    numbers = {"per": 0.5, "effective_rank": 4.0, "numerical_rank": 7, "max_rank": 8}
    rows = (row | numbers, row | numbers | {"per": 0.25}, row | {"status": "nonfinite"})
    line = step_line(WatchedStep("r", 3, "epoch", rows))
    assert line == "r  epoch 3: weight PER 0.375, rank 7 of 8; 3 matrices"
