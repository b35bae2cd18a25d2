import io
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

import rankscope as rs
from rankscope.cli.app import app
from tests.comparison.test_compare import write_study


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study")) / "results"


def called(results: Path, *options: str) -> str:
    runs = [str(results.parent / "ckpts" / name) for name in ("flat", "falling")]
    done = CliRunner().invoke(app, ["compare", *runs, "--results", str(results), *options])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_the_terminal_has_the_differences_the_distances_and_what_they_rest_on(
    results: Path,
) -> None:
    lines = called(results, "--all", "--metrics", "per").splitlines()
    assert lines[0] == "differences, flat → falling"
    assert lines[1].split()[:6] == ["at", "component", "role", "metric", "flat", "falling"]
    row = next(line for line in lines if line.split()[:4] == ["20", "weight", "q", "per"])
    table = rs.open_results(results).metrics.query("step == 20 and role == 'q'")
    means = table.query("component == 'weight'").groupby("run")["per"].mean()
    assert [f"{means[run]:.4g}" for run in ("flat", "falling")] == row.split()[4:6]
    assert "distances of the weights, flat and falling" in lines
    assert any(line.startswith("• at equal loss, ") for line in lines)
    said = [f"• {sentence}" for sentence in rs.answer(results)[:-1]]
    assert said == [line for line in lines if line.startswith("• ")][: len(said)]
    assert lines[-1].endswith("other seeds may differ more")


@pytest.mark.parametrize("form", ["markdown", "latex"])
def test_tables_for_papers_hold_tables_alone(results: Path, form: str) -> None:
    out = called(results, "--all", "--metrics", "per", "--table", form)
    tables = out.strip().split("\n\n")
    assert len(tables) == 2
    for table in tables:
        assert table.startswith("|" if form == "markdown" else r"\begin{tabular}")


def test_csv_is_the_whole_table(results: Path) -> None:
    found = pd.read_csv(io.StringIO(called(results, "--table", "csv")))
    assert len(found) == len(rs.compare("flat", "falling", results=results).metrics)


@pytest.mark.slow
def test_files_are_written_where_they_are_asked_for(results: Path, tmp_path: Path) -> None:
    out = tmp_path / "compared"
    shown = called(results, "--out", str(out), "--no-weights", "--metrics", "per")
    assert {path.name for path in out.iterdir()} == {
        *("differences.csv", "distances.csv"),
        *("difference-per-weight.pdf", "difference-per-weight.png"),
    }
    assert str(out / "differences.csv") in shown


def test_a_wrong_name_ends_with_2_and_names_the_option(results: Path) -> None:
    done = CliRunner().invoke(app, ["compare", "flat", "rising", "--results", str(results)])
    assert done.exit_code != 0
    assert "--results" in str(done.exception)
