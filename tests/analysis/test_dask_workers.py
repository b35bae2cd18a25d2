import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import TinyRun

PROGRAM = [sys.executable, "-c", "from rankscope.cli import main; main()"]

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None, reason="Dask is not installed"
)


def analyze(run: Path, out: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, "analyze", str(run), "--out", str(out), "--engine", "dask", "--jobs", "2"],
        capture_output=True,
        text=True,
        timeout=180,
        env=os.environ | environment,
    )


@pytest.mark.slow
def test_a_dask_cluster_gives_the_same_bits(relora_run: TinyRun, tmp_path: Path) -> None:
    done = analyze(relora_run.path, tmp_path / "dask")
    assert done.returncode == 0, done.stderr
    subprocess.run(
        [*PROGRAM, "analyze", str(relora_run.path), "--out", str(tmp_path / "local")],
        check=True,
        capture_output=True,
    )
    tables = [(tmp_path / name / "metrics.csv").read_bytes() for name in ("dask", "local")]
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_a_scheduler_that_cannot_be_reached_is_one_line(
    relora_run: TinyRun, tmp_path: Path
) -> None:
    done = analyze(
        relora_run.path,
        tmp_path / "out",
        DASK_SCHEDULER_ADDRESS="tcp://127.0.0.1:9",
        DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT="1s",
    )
    assert done.returncode == 4
    assert done.stderr.splitlines()[-1].startswith(
        "rankscope: the Dask scheduler cannot be reached"
    )
