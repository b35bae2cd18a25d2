"""A full disk: exit code 5, the file that could not be written is named, and no half of it is left.

A limit on the size of files stands for it; where that is allowed, so does a tiny file system.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import write_full_run, write_relora_run
from tests.reliability.commands import ended_command, started_command
from tests.reliability.killing import Ended
from tests.reliability.kills import leftovers

ANALYZE = ("analyze", "ckpts/full", "--out", "new", "--components", "weight", "--jobs", "1")
WATCH = ("watch", "ckpts/full", *ANALYZE[2:], "--poll", "0.01", "--idle", "0.001")
FIGURES = ("figures", "results", "--out", "new", "--only", "per-weights")
REPORT = ("report", "results", "--out", "new/report.html")
COMPARE = ("compare", "full", "relora", "--results", "results", "--out", "new", "--no-weights")
PREPARE = ("data", "prepare", "texts", "--out", "new")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs with their results, and texts."""
    import rankscope as rs

    folder, rng = tmp_path_factory.mktemp("study"), np.random.default_rng(5)
    write_full_run(folder / "ckpts" / "full", rng)
    write_relora_run(folder / "ckpts" / "relora", rng)
    rs.analyze(folder / "ckpts", out=folder / "results", components="weight", jobs=1)
    (folder / "texts").mkdir()
    for n in range(20):
        (folder / "texts" / f"{n}.txt").write_text(f"document {n} " * 20)
    return folder


@pytest.fixture
def here(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for path in study.iterdir():
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def without_figures() -> None:
    """Let a report have none: they are drawn in memory, and take long."""
    from rankscope.report import page

    page._figures = lambda *_, **__: ([], [])  # type: ignore[assignment]


def assert_named(ended: Ended, path: str) -> None:
    assert ended.code == 5, ended.said
    *notes, line = ended.said.splitlines()
    assert all(note.startswith("note: ") for note in notes)
    assert line.startswith("rankscope: ") and path in line and len(line) < 500
    assert ".tmp-" not in line


@pytest.mark.parametrize(
    ("command", "most_bytes", "path"),
    [
        (ANALYZE, 100, "new/spectra/full/step-00000005.safetensors"),
        (ANALYZE, 12_000, "new"),  # what waits for the table has no name
        (ANALYZE, 20_500, "new/metrics."),
        (WATCH, 100, "new/spectra/full/step-00000005.safetensors"),
        (FIGURES, 100, "new/per-weights.pdf"),
        (REPORT, 100, "new/report.html"),
        (COMPARE, 100, "new/differences.csv"),
        (PREPARE, 100, "new"),
    ],
    ids=lambda given: given[0] if isinstance(given, tuple) else None,
)
def test_what_could_not_be_written_is_named_and_not_there(
    here: Path, command: tuple[str, ...], most_bytes: int, path: str
) -> None:
    assert_named(
        started_command(*command, most_bytes=most_bytes, before=without_figures).ended(), path
    )
    assert leftovers(here) == []
    # Half a file would be as long as a file may be.
    assert all(one.stat().st_size < most_bytes for one in here.rglob("new/**/*") if one.is_file())


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 kB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("may not mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_really_is_full(here: Path, tiny: Path) -> None:
    """It has no space for the file, nor later for its name; with space again, all is well."""
    (tiny / "filler").write_bytes(b"x" * (52 << 10))
    out = str(tiny / "new")
    run = partial(ended_command, "data", "prepare", "texts", "--out", out)
    assert_named(run(), out)
    (tiny / "filler").unlink()
    assert list(tiny.rglob("*")) == []
    assert run().code == 0
