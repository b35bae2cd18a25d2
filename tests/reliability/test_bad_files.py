"""Every bad file costs what it says in `bad_files`, with one line, and nothing else."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rankscope.analysis.preview import preview
from rankscope.checkpoints.discovery import survey
from tests.reliability.bad import BAD_STEP, STEPS, Array, Bad, delta, honest, write_run
from tests.reliability.bad_files import BAD_FILES
from tests.reliability.called import Called, called

SECONDS, MEMORY = 2.0, 200  # of processor time and in MB, for one call
AT_CHECKPOINTS = {"adapter": "adapter"}  # what else a place holds: component of its rows


@pytest.mark.parametrize("bad", BAD_FILES, ids=lambda bad: bad.name[:40])
def test_a_bad_file_costs_itself(
    bad: Bad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = write_run(tmp_path / "run", bad), tmp_path / "out"
    before = list_of(tmp_path / "run")
    with bounded():
        done = called(monkeypatch, capsys, "analyze", tmp_path / "run", "--out", out, "--jobs", 1)
    assert done.code == bad.exit_code, done.err
    assert list_of(tmp_path / "run") == before
    assert_nothing_outside_was_opened(done, tmp_path)
    skips = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    assert_one_line(bad, done.err, skips, path)
    assert_measured(bad, pd.read_parquet(out / "metrics.parquet"))
    if bad.headers:
        with bounded():
            assert seen_by_inspect(tmp_path / "run") == skips


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that ran would leave its traces in the current folder."""
    monkeypatch.chdir(tmp_path_factory.getbasetemp())


def list_of(folder: Path) -> list[Path]:
    """Everything below a folder, and what code that ran would have left here."""
    return [*sorted(folder.rglob("*")), *Path().glob("ran")]
