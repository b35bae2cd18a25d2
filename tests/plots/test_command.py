from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from rankscope import plots
from rankscope.cli.figures import figures
from rankscope.errors import RankscopeError
from rankscope.results.columns import EVALUATION_FILE
from rankscope.results.results import METRICS_FILE, TRAINING_FILE

SCRIPTS = Path(__file__).parents[2] / "figures"
RUNNER = CliRunner()
APP = typer.Typer()
APP.command()(figures)


@pytest.fixture(scope="session")
def folder(results: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder of one role, with weights, updates and performance, but no spectra."""
    path = tmp_path_factory.mktemp("results")
    table = results.metrics
    kept = table["component"].isin(["weight", "update"]) & (table["role"] == "v")
    table[kept].to_parquet(path / METRICS_FILE)
    results.training.to_csv(path / TRAINING_FILE, index=False)
    results.evaluation.to_parquet(path / EVALUATION_FILE)
    return path


def test_figures_are_written_and_named_and_the_others_explained(
    folder: Path, tmp_path: Path
) -> None:
    outcome = RUNNER.invoke(APP, [str(folder), "--out", str(tmp_path / "new" / "f")])
    assert outcome.exit_code == 0, outcome.output
    written = outcome.stdout.split()
    assert str(tmp_path / "new" / "f" / "loss.pdf") in written
    assert sorted(map(Path, written)) == sorted((tmp_path / "new" / "f").iterdir())
    assert "left out per-gradients: the results hold no gradients" in outcome.stderr
    assert "left out update-spectra: no spectra" in outcome.stderr
    names = {Path(path).stem for path in written}
    assert names == set(plots.FIGURES) - {
        "per-gradients",
        "per-ov",
        *("per-adapters", "condition-numbers-adapters", "heatmap-per-adapters"),
        *("per-cumulative-updates", "heatmap-per-cumulative-updates"),
        "update-spectra",
        "merged-rank",
    }


def test_an_evaluation_alone_has_its_figures(results: Any, tmp_path: Path) -> None:
    results.evaluation.to_parquet(tmp_path / EVALUATION_FILE)
    outcome = RUNNER.invoke(APP, [str(tmp_path)])
    assert outcome.exit_code == 0, outcome.output
    names = {Path(path).stem for path in outcome.stdout.split()}
    assert names == {"performance", "blimp-phenomena"}
    assert outcome.stderr.count("left out") == len(plots.FIGURES) - len(names)
    assert "left out rank-and-performance: the results hold no weights" in outcome.stderr


@pytest.mark.parametrize("name", ["performance", "blimp-phenomena", "rank-and-performance"])
def test_a_script_draws_performance(folder: Path, tmp_path: Path, name: str) -> None:
    command = [sys.executable, str(SCRIPTS / f"{name}.py"), str(folder), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.pdf", f"{name}.png"}


def test_figures_of_no_results_are_refused(tmp_path: Path) -> None:
    outcome = RUNNER.invoke(APP, [str(tmp_path)])
    assert isinstance(outcome.exception, RankscopeError)
    assert str(tmp_path) in str(outcome.exception)
    assert not list(tmp_path.iterdir())


def test_a_file_is_no_place_for_figures(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    outcome = RUNNER.invoke(APP, [str(folder), "--out", str(tmp_path / "f")])
    assert isinstance(outcome.exception, RankscopeError)
    assert "is a file" in str(outcome.exception)


def test_an_unknown_width_is_answered_with_the_known_ones(folder: Path) -> None:
    outcome = RUNNER.invoke(APP, [str(folder), "--width", "aclx"])
    assert "give one of acl, acl-text" in str(outcome.exception)


def test_a_script_draws_its_figure(folder: Path, tmp_path: Path) -> None:
    options = ["--out", str(tmp_path), "--width", "acl"]
    command = [sys.executable, str(SCRIPTS / "loss.py"), str(folder), *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(tmp_path / "loss.pdf"), str(tmp_path / "loss.png")]


def test_a_script_without_data_says_so_in_one_line(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPTS / "per-gradients.py"), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 4
    assert done.stderr.startswith("per-gradients.py: no rows with component 'gradient'")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
