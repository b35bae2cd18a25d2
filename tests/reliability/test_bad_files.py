"""Every bad file costs what it says in `bad_files`, with one line, and nothing else."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.main import get_command

from rankscope.analysis.preview import preview
from rankscope.checkpoints.discovery import survey
from rankscope.checkpoints.limits import CGROUPS, short_name
from rankscope.cli import app as program
from rankscope.errors import printable
from tests.documents import ROOT
from tests.reliability.bad import BAD_STEP, STEPS, Array, Bad, K, delta, honest, write_run
from tests.reliability.bad_files import BAD_FILES
from tests.reliability.called import Called, called
from tests.reliability.first_of_kind import first_of_kind

COMMANDS = get_command(program.app)
SECONDS, MEMORY = 2.0, 200  # of processor time and in MB, for one call
OF_SYSTEM = (
    os.devnull,
    *CGROUPS,
    *(f"/proc/{one}" for one in ("sys/kernel/random/boot_id", os.getpid())),
)
# A cluster that another test has closed still tidies up, in threads of its own.
OF_OTHERS = "/dask-scratch-space/"
OF_STEPS = ("no-matrices", "absent", "break")  # reasons that name the folder of a step


@pytest.mark.parametrize(
    "bad",
    first_of_kind(
        BAD_FILES,
        lambda bad: bad.family,
        lambda bad: (bad.reason, bad.place),
        name=lambda bad: bad.name[:40],
    ),
)
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
def _quick(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Code that ran would leave traces in the current folder; what every call repeats is left out.

    Half of such a call would be parsing the signatures of all commands, and waiting for the disk.
    """
    monkeypatch.chdir(tmp_path_factory.getbasetemp())
    monkeypatch.setattr(program, "_with", lambda _: COMMANDS)
    monkeypatch.setattr(os, "fsync", lambda _: None)


def list_of(folder: Path) -> list[Path]:
    """Everything below a folder, and what code that ran would have left here."""
    return [*sorted(folder.rglob("*")), *Path().glob("ran")]


@contextmanager
def bounded() -> Iterator[None]:
    """A call may take neither long nor much memory, unless it imports modules for all others."""
    start, peak, modules = time.process_time(), peak_memory(), len(sys.modules)
    yield
    if len(sys.modules) > modules:
        return
    assert time.process_time() - start < SECONDS
    assert peak_memory() - peak < MEMORY


def peak_memory() -> float:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def assert_nothing_outside_was_opened(done: Called, place: Path) -> None:
    """No path in a file leads out of the run."""
    own = tuple(str(Path(one).resolve()) for one in (place, ROOT, sys.prefix, sys.base_prefix))
    assert not [
        path
        for path in done.opened
        if not path.startswith((*own, *OF_SYSTEM)) and OF_OTHERS not in path
    ]


def assert_one_line(bad: Bad, said: str, skips: list[dict[str, str]], path: Path) -> None:
    """One line names the file, the tensor and the reason; the file of skips says the same."""
    lines = said.splitlines()
    skipped = [line for line in lines if line.startswith("skipped: ")]
    assert len(skipped) == len(skips) == (bad.lines if bad.exit_code else 0), said
    assert len(lines) == len(skipped) + bad.notes, said
    assert all(len(line) < 500 and line.isprintable() for line in lines)
    if not skips:
        return
    place = str(path.parent if bad.reason in OF_STEPS else path)
    asked = (place, bad.tensor, bad.reason)
    known = [(skip["path"], skip["tensor"], skip["reason"]) for skip in skips]
    assert asked in known
    first, line = skips[known.index(asked)], skipped[known.index(asked)]
    assert line.endswith(f" [{bad.reason}]") and Path(first["path"]).name in line
    assert repr(printable(bad.tensor)) in line or not bad.tensor
    assert bad.what in line and printable(first["message"], limit=60).rstrip("…") in line


def assert_measured(bad: Bad, table: pd.DataFrame) -> None:
    """Every matrix of a file that was not lost is measured, and none of one that was."""
    ok = table[~table["status"].str.startswith(("skipped", "nonfinite"))]
    of_files = ok[ok["component"].isin(["adapter" if bad.place == "adapter" else "weight"])]
    true = truth(bad)
    assert {(one.step, one.name) for one in of_files.itertuples()} == set(true)
    for one in of_files.itertuples():
        assert_true(one, true[one.step, one.name])
    for one in ok[ok["component"] == "update"].itertuples():
        assert_true(one, true[one.step, one.name] - true[one.since, one.name])
    last = table[(table["step"] == STEPS[-1]) & (table["component"] == "update")]
    assert len(last) or bad.breaks
    if bad.place == "merge":
        assert_merges(bad, ok)


def truth(bad: Bad) -> dict[tuple[int, str], Array]:
    """The matrices of all steps that can be read, by step and name, in float64."""
    true = {}
    for step in STEPS:
        held = (bad.step or honest)(step)
        if bad.place == "adapter":
            held = {name: delta(step, name) for name in held}
        if step == BAD_STEP and bad.place != "merge":
            held = {} if bad.cost == "step" else dict(bad.truth or held)
            if bad.cost == "tensor":
                held.pop(bad.tensor, None)
        for name, one in held.items():
            true[step, short_name(name)] = np.asarray(one, np.float64)
    return {key: one for key, one in true.items() if one.ndim == 2 and min(one.shape) > 1}


def assert_merges(bad: Bad, ok: pd.DataFrame) -> None:
    """Merges up to the first that cannot be read, whose numbers are those of their factors."""
    held = {(step, name) for step in STEPS for name in honest()}
    if bad.cost == "step":
        held = {(step, name) for step, name in held if step < BAD_STEP}
    elif bad.cost == "tensor":
        held.remove((BAD_STEP, K))
    rows = list(ok[ok["component"] == "merge"].itertuples())
    assert {(one.step, one.name) for one in rows} == held
    for one in rows:
        assert_true(one, delta(one.step, one.name))


def assert_true(row: Any, matrix: Array) -> None:
    """A row has numpy's singular values in its measures."""
    scale = np.abs(matrix).max() or 1.0
    s = np.linalg.svd(matrix / scale, compute_uv=False)
    assert (row.rows, row.cols) == matrix.shape
    found = [row.spectral_norm, row.frobenius_norm]
    np.testing.assert_allclose(found, [s[0] * scale, np.sqrt((s**2).sum()) * scale], rtol=1e-9)
    if s[0] == 0:
        assert row.status == "zero" and np.isnan(row.effective_rank)
        return
    p = s[s > s[0] * 1e-12] / s.sum()
    true = np.exp(-(p * np.log(p)).sum())
    assert abs(row.effective_rank - true) <= (row.per_error + 1e-12) * true
    assert row.per_error < 1e-5


def seen_by_inspect(run: Path) -> list[dict[str, str]]:
    """What ``inspect`` says that an analysis would skip."""
    return list(preview(survey([run]))["skips"])


def test_there_are_enough_files_and_each_has_a_name() -> None:
    assert len({bad.name for bad in BAD_FILES}) == len(BAD_FILES) >= 110
    families = {bad.family for bad in BAD_FILES}
    assert families >= set(range(1, 75))
