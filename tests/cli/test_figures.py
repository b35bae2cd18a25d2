from __future__ import annotations

import runpy
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import typer
from matplotlib.figure import Figure
from typer.testing import CliRunner

from rankscope import plots
from rankscope.cli.figures import figures
from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.plots.feature_figures import default_features
from rankscope.results.columns import (
    EVALUATION_FILE,
    REPRESENTATIONS_FILE,
    SIMILARITIES_FILE,
)
from rankscope.results.results import METRICS_FILE, TRAINING_FILE, typed
from tests.conftest import forget_digests
from tests.plots.conftest import SyntheticResults, synthetic_results
from tests.plots.made_features import representations, similarities
from tests.reliability.commands import finished_command

SCRIPTS = Path(__file__).parents[2] / "figures"
RUNNER = CliRunner()
APP = typer.Typer()
APP.command()(figures)


@pytest.fixture(scope="session")
def results() -> SyntheticResults:
    return synthetic_results()


@pytest.fixture(scope="session")
def folder(results: SyntheticResults, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder of one role, with weights, updates and performance, but no spectra."""
    path, table = tmp_path_factory.mktemp("results"), results.metrics
    kept = table["component"].isin(["weight", "update"]) & (table["role"] == "v")
    typed(table[kept]).to_parquet(path / METRICS_FILE)
    results.training.to_csv(path / TRAINING_FILE, index=False)
    results.evaluation.to_parquet(path / EVALUATION_FILE)
    return path


@pytest.fixture
def everything(example_folder: Path, results: SyntheticResults, tmp_path: Path) -> Path:
    """Results of a real analysis with its spectra, one layer more, and performance of its runs."""
    copied = shutil.copytree(example_folder / "results", tmp_path / "results")
    forget_digests(copied)
    table = pd.read_parquet(copied / METRICS_FILE)
    deeper = table[table["layer"] == 1].assign(layer=2)
    pd.concat([table, deeper.astype(table.dtypes)]).to_parquet(copied / METRICS_FILE)
    evaluation = results.evaluation
    evaluation.assign(step=evaluation["step"] // 10).to_parquet(copied / EVALUATION_FILE)
    results.training.to_csv(copied / TRAINING_FILE, index=False)
    for made, file in (
        (representations(), REPRESENTATIONS_FILE),
        (similarities(), SIMILARITIES_FILE),
    ):
        made.assign(step=made["step"] // 10).to_parquet(copied / file)
    return copied


KINDS = ("weights", "updates")


@pytest.mark.slow
def test_figures_are_written_and_named_and_the_others_explained(
    folder: Path, tmp_path: Path
) -> None:
    outcome = RUNNER.invoke(APP, [str(folder), "--out", str(tmp_path / "new" / "f")])
    assert outcome.exit_code == 0, outcome.output
    written = outcome.stdout.split()
    assert str(tmp_path / "new" / "f" / "loss.pdf") in written
    assert sorted(map(Path, written)) == sorted((tmp_path / "new" / "f").iterdir())
    caption = (tmp_path / "new" / "f" / "per-weights.tex").read_text(encoding="utf-8")
    assert caption.startswith("PER of weights. Vertical: PER = effective rank / min(m, n);")
    assert "left out per-gradients: the results hold no gradients" in outcome.stderr
    assert "left out update-spectra: no spectra" in outcome.stderr
    lacking = "the results hold no features of two layers, which `represent` measures if `compare`"
    assert f"left out cka-layers-features: {lacking} names 'layers'" in outcome.stderr
    few = "left out rank-against-performance: the results hold no weights and performance of 4 runs"
    assert few in outcome.stderr
    names = {Path(path).stem for path in written}
    assert names == set(plots.FIGURES) - {
        "per-gradients",
        *("per-ov", "per-qk"),
        *("per-adapters", "condition-numbers-adapters", "heatmap-per-adapters"),
        *("per-cumulative-updates", "heatmap-per-cumulative-updates"),
        *("update-spectra", "update-histograms", "learning-rate"),
        *(f"halves-{of}-{kind}" for of in ("per", "condition-numbers") for kind in KINDS),
        "merged-rank",
        *("overlap-weights", "update-energy-weights", "intruders-weights"),
        *(f"input-energy-{kind}" for kind in (*KINDS, "adapters")),
        *("intruders-weights-since-first", "merge-alignment", "circuits-by-head"),
        "rank-against-performance",
        *default_features("block"),
        "features-against-weights",
    }


@pytest.mark.slow
def test_an_evaluation_alone_has_its_figures(results: SyntheticResults, tmp_path: Path) -> None:
    results.evaluation.to_parquet(tmp_path / EVALUATION_FILE)
    outcome = RUNNER.invoke(APP, [str(tmp_path)])
    assert outcome.exit_code == 0, outcome.output
    names = {Path(path).stem for path in outcome.stdout.split()}
    assert names == {"performance", "blimp-phenomena"}
    assert outcome.stderr.count("left out") == len(plots.FIGURES) - len(names)
    assert "left out rank-and-performance: the results hold no weights" in outcome.stderr


def test_figures_of_no_results_are_refused(tmp_path: Path) -> None:
    outcome = RUNNER.invoke(APP, [str(tmp_path)])
    assert isinstance(outcome.exception, RankscopeError)
    assert str(tmp_path) in str(outcome.exception)
    assert not list(tmp_path.iterdir())


def test_a_file_is_not_a_folder_for_figures(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    outcome = RUNNER.invoke(APP, [str(folder), "--out", str(tmp_path / "f")])
    assert isinstance(outcome.exception, WrongSettingError)
    assert "is a file" in str(outcome.exception)


@pytest.mark.parametrize(
    ("option", "name", "known"),
    [
        ("--venue", "acm", "choose one of acl, acl-text"),
        ("--width", "acm", "choose one of acl, acl-text"),  # the old spelling
        ("--only", "per-wieghts", "choose from per-weights,"),
        ("--component", "adapter", "choose from update, weight"),
        ("--run", "ful", "choose from full, relora"),
        ("--role", "q", "choose from v"),
        ("--group", "seed", "matches no run: there are full, relora"),
        ("--group", "(full", "not a regular expression: missing )"),
    ],
)
@pytest.mark.slow
def test_an_unknown_name_is_wrong_use(
    folder: Path, tmp_path: Path, option: str, name: str, known: str
) -> None:
    done = finished_command("figures", folder, "--out", tmp_path / "f", option, name)
    assert (done.returncode, done.stdout) == (2, "")
    assert name in done.stderr and known in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--only", "per-weights", "--only", "loss"], {"per-weights", "loss"}),
        (["--component", "update", "--run", "full"], {"per-updates", "heatmap-per-updates",
                                                      "condition-numbers-updates"}),
        (["--only", "per-weights", "--group", "full|relora"], {"per-weights"}),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_figures_can_be_chosen(
    folder: Path, tmp_path: Path, options: list[str], names: set[str]
) -> None:
    outcome = RUNNER.invoke(APP, [str(folder), "--out", str(tmp_path), *options])
    assert outcome.exit_code == 0, outcome.output
    assert {Path(path).stem for path in outcome.stdout.split()} == names


@pytest.mark.slow
def test_progress_moves_on_from_figure_to_figure(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[tuple[float, str]] = []

    @contextmanager
    def bar(title: str) -> Iterator[Callable[[float, str], None]]:
        yield lambda share, label: shown.append((share, label))

    monkeypatch.setattr("rankscope.cli.progress.progress_bar", bar)
    options = ["--only", "loss", "--only", "performance"]
    RUNNER.invoke(APP, [str(folder), "--out", str(tmp_path), *options], catch_exceptions=False)
    assert shown == [(0, "loss"), (0.5, "performance")]


def run_script(name: str, *arguments: object, monkeypatch: pytest.MonkeyPatch) -> object:
    """Run a script as its own program would; returns the exit status."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(SCRIPTS / f"{name}.py"), run_name="__main__")
    return end.value.code


@pytest.mark.parametrize("name", sorted(path.stem for path in SCRIPTS.glob("*.py")))
@pytest.mark.slow
def test_a_script_draws_its_figure(
    everything: Path,
    tmp_path: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    options = [everything, "--out", out, "--venue", "acl"]
    assert run_script(name, *options, monkeypatch=monkeypatch) == 0
    written = [f"{out / name}.{suffix}" for suffix in ("pdf", "png", "tex")]
    assert capsys.readouterr().out.split() == written


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ([], 4, "merged-rank.py: the results hold no recorded merges"),
        (["--venue", "acm"], 2, "merged-rank.py: unknown venue 'acm'"),
        (["--width", "acm"], 2, "merged-rank.py: unknown venue 'acm'"),
    ],
)
def test_a_script_that_draws_nothing_says_why_in_one_line(
    folder: Path,
    tmp_path: Path,
    options: list[str],
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_script("merged-rank", folder, *options, monkeypatch=monkeypatch) == code
    shown = capsys.readouterr()
    assert shown.err.startswith(message) and shown.err.count("\n") == 1
    assert not shown.out and not list(tmp_path.iterdir())


def test_steps_can_be_on_a_log_scale(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[Figure] = []
    monkeypatch.setattr(
        plots, "save_figure", lambda figure, *_, caption: saved.append(figure) or [tmp_path]
    )
    for options in ([], ["--log-steps"]):
        outcome = RUNNER.invoke(APP, [str(folder), "--only", "loss", *options])
        assert outcome.exit_code == 0, outcome.output
    assert [figure.axes[0].get_xscale() for figure in saved] == ["linear", "log"]
