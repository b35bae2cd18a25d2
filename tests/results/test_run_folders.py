"""Stores of runs whose names differ in capitals alone are apart on every file system."""

import time
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rankscope as rs
from rankscope.analysis.analyze import answer
from rankscope.analysis.engines import engine_of
from rankscope.analysis.question import Question
from rankscope.pipeline.curves import recorded_curve
from rankscope.pipeline.seen_files import TICK
from rankscope.results.run_folders import rename_older, run_folder, run_folder_name

ASKED = {"components": "weight", "roles": "q"}


@given(st.text(), st.text())
def test_two_names_are_two_folders_in_any_case(one: str, other: str) -> None:
    folders = {run_folder_name(name).lower() for name in (one, other)}
    assert len(folders) == len({one, other})


@pytest.mark.parametrize(("one", "other"), [("Full", "full"), ("a/B", "a/b"), ("X", "x-1")])
def test_capitals_count(one: str, other: str) -> None:
    assert run_folder_name(one).lower() != run_folder_name(other).lower()


def test_folders_of_earlier_versions_are_read_and_then_renamed(
    full_run: Path, tmp_path: Path
) -> None:
    run, out = tmp_path / "Full", tmp_path / "out"
    full_run.rename(run)
    time.sleep(2 * TICK / 1e9)  # rows are kept of files whose changes show in their times
    question = Question(paths=(str(run),), **ASKED)  # type: ignore[arg-type]
    assert answer(question, out=out, engine=engine_of("local", 1)).computed
    known = rs.open_results(out).spectra("weight")
    for store in ("spectra", "rows"):
        (out / store / run_folder_name("Full")).rename(out / store / "Full")
    pd.testing.assert_frame_equal(rs.open_results(out).spectra("weight"), known)
    assert (out / "spectra" / "Full").is_dir()  # reading leaves everything as it is
    assert answer(question, out=out, engine=engine_of("local", 1)).computed == 0
    assert [one.name for one in (out / "spectra").iterdir()] == [run_folder_name("Full")]
    pd.testing.assert_frame_equal(rs.open_results(out).spectra("weight"), known)


def test_the_folder_of_another_run_is_not_taken_for_an_older_one(tmp_path: Path) -> None:
    (tmp_path / "spectra" / "full").mkdir(parents=True)
    rename_older(tmp_path, ["Full"])
    assert run_folder(tmp_path / "spectra", "Full").name == run_folder_name("Full")
    assert run_folder(tmp_path / "spectra", "full").is_dir()


def test_a_recorded_curve_has_the_present_folder_of_its_run() -> None:
    known = {"run": "Full", "path": "/x", "task": "t", "folder": "scores/Full/t-1", "settings": {}}
    assert recorded_curve(known).folder == f"scores/{run_folder_name('Full')}/t-1"
