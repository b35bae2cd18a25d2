"""Every bad run ends as `tests.reliability.bad_runs` says, and the rest of it is measured right."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.reliability.bad_configs import adapter_config
from tests.reliability.bad_folders import CLOSED
from tests.reliability.bad_runs import CASES
from tests.reliability.called import Called, called
from tests.reliability.first_of_kind import first_of_kind
from tests.reliability.spoiled_run import Bad, honest, weights

LONGEST = 500


def section(case: Bad) -> str:
    """What a case belongs to in the table."""
    return str(case).partition(":")[0]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder whose permissions are given back, so that it can be removed."""
    yield tmp_path
    for folder, folders, _ in os.walk(tmp_path):
        for name in folders:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(0o755)


def spoiled(place: Path, case: Bad) -> Path:
    """The run of a case, which may have been renamed."""
    home = place / "home"
    run = honest(home / "run")
    case.make(run)
    if case in CLOSED and os.access(run / "checkpoint-2", os.R_OK) and is_all_powerful(place):
        pytest.skip("permissions do not bind this user")
    return run if run.exists() else next(iter(home.iterdir()))


def is_all_powerful(place: Path) -> bool:
    """Whether this user may read what nobody may read."""
    closed = place / "closed"
    closed.touch(mode=0)
    return os.access(closed, os.R_OK)


def lines(text: str) -> list[str]:
    """Lines on stderr, which must all be what the program says."""
    return [line for line in text.splitlines() if line]


@pytest.mark.filterwarnings("default::rankscope.errors.RankscopeWarning")
@pytest.mark.parametrize("case", first_of_kind(CASES, section, lambda case: case.reason))
def test_a_bad_run_costs_what_is_bad(
    case: Bad, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = spoiled(place, case), place / "out"
    done = called(monkeypatch, capsys, "analyze", run, "--out", out, "--jobs", 1)
    seen = called(monkeypatch, capsys, "inspect", run, "--json")

    assert done.code == case.exit_code == seen.code, done.err
    said = lines(done.err)
    assert all(line.startswith(("skipped: ", "note: ", "rankscope: ")) for line in said), said
    assert max(map(len, said), default=0) < LONGEST
    assert_printable(done)
    assert not case.what or any(case.what in line for line in said), said
    assert_nothing_outside_was_opened(place, done, seen)
    if case.exit_code == 4:
        return
    skips = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    reasons = {skip["reason"] for skip in skips}
    assert case.reason in reasons if case.reason else not skips
    assert sum(line.startswith("skipped: ") for line in said) == len(skips)
    assert json.loads(seen.out)["skips"] == skips
    assert_measured(out, case)


def assert_printable(done: Called) -> None:
    """No name may control the terminal."""
    shown = done.out + done.err
    assert all(c.isprintable() or c == "\n" for c in shown)


def assert_nothing_outside_was_opened(place: Path, *calls: Called) -> None:
    """No link or name in a file leads out of the run."""
    forbidden = ("/etc/passwd", "/dev/zero", str(place / "home" / "elsewhere"))
    for done in calls:
        assert not [path for path in done.opened if path.startswith(forbidden)]


def assert_measured(out: Path, case: Bad) -> None:
    """The weights of these steps and of no others are in the table, as numpy has them."""
    table, steps = pd.read_parquet(out / "metrics.parquet"), case.steps
    rows = table[(table["component"] == "weight") & (table["status"] == "ok")]
    assert sorted(rows["step"].unique()) == list(steps)
    if case.reason.startswith("adapter-") and 2 in steps:
        assert 4 not in set(rows[rows["step"] == 2]["rows"])  # the matrix without its adapter
    for step in {1, 3} & set(steps):
        own = rows[rows["step"] == step].set_index("rows")
        for matrix in weights(step).values():
            s = np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False)
            found = own.loc[len(matrix)]
            stated = found[["spectral_norm", "frobenius_norm", "stable_rank"]].astype(float)
            norm = np.sqrt((s**2).sum())
            np.testing.assert_allclose(stated, [s[0], norm, norm**2 / s[0] ** 2], rtol=1e-12)


def test_a_scale_beyond_all_numbers_costs_what_it_scales(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = honest(tmp_path / "run")
    adapter_config(run, lora_alpha=1e308)
    done = called(monkeypatch, capsys, "analyze", run, "--out", tmp_path / "out")
    assert done.code == 3, done.err
    assert all(str(run) in line for line in lines(done.err)), done.err
    table = pd.read_parquet(tmp_path / "out" / "metrics.parquet")
    norms = table.loc[table["step"] != 2, "frobenius_norm"]
    assert (norms[table["component"] == "weight"] < 100).all()


ALSO = (  # one of each kind, for the other commands
    "folders: a FIFO for weights",
    "folders: our own results, half written",
    "folders: an empty folder of a step",
    "numbers of steps: a negative step",
    "permissions: the folder of a step",
    "permissions: a folder that may be listed only",
    "permissions: a log",
    "trainer_state.json: half-written",
    "trainer_state.json: a FIFO",
    "logs: a line of 10^5 brackets",
    "logs: a lone surrogate as key",
    "logs: a number of 400 digits",
    "logs: history that is a number",
    "logs: settings that are a FIFO",
    "shards: one is a FIFO",
    "indices: a shard of 5000 characters",
    "links: weights outside",
    "config.json: a list",
    "adapters: A without B",
    "names of tensors: with half a character",
    "names of tensors: a layer of 5000 digits",
    "names of runs: not UTF-8",
    "names of runs: terminal codes",
)
CHOSEN = [case for case in CASES if str(case) in ALSO]


@pytest.mark.parametrize("case", first_of_kind(CHOSEN, section))
def test_diagnose_and_watch_bear_it_too(
    case: Bad, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = spoiled(place, case), place / "out"
    quick = ("--out", out, "--poll", "0.001", "--idle", "0.001")
    watched = called(monkeypatch, capsys, "watch", run, *quick)
    assert watched.code == case.exit_code, watched.err
    assert_measured(out, case)
    found = called(monkeypatch, capsys, "diagnose", run, "--results", out)
    assert found.code in (0, 1), found.err
    for done in (watched, found):
        assert_printable(done)
        assert max(map(len, lines(done.err)), default=0) < LONGEST
    assert_nothing_outside_was_opened(place, watched, found)


@pytest.mark.slow
@pytest.mark.parametrize("case", CHOSEN[::3], ids=str)
def test_evaluate_bears_it_too(
    case: Bad, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = spoiled(place, case)
    (place / "text.txt").write_text("The cat sat on the mat.\n")
    text = ("--text", place / "text.txt", "--out", place / "out")
    done = called(monkeypatch, capsys, "evaluate", run, *text)
    assert done.code in (3, 4), done.err  # these models have no tokenizer
    assert_printable(done)
    assert max(map(len, lines(done.err)), default=0) < LONGEST


def test_there_are_enough_cases_and_each_has_a_name() -> None:
    assert len({str(case) for case in CASES}) == len(CASES) >= 150
    assert len(CHOSEN) == len(ALSO)
