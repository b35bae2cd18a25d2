"""``rankscope correlate``: what it prints is what the library finds."""

from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import rankscope as rs
from rankscope.cli.app import app
from rankscope.errors import RankscopeError
from rankscope.results.columns import EVALUATION_COLUMNS, EVALUATION_FILE, METRICS_FILE
from rankscope.results.results import table_of
from tests.statistics.test_differences import row
from tests.statistics.test_run_correlation import GROUP, arms


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Methods of higher rank are worse, and seeds of higher rank within each are better."""
    ranks, losses = arms(np.random.default_rng(2), between=0.2, within=-0.05)
    folder = tmp_path_factory.mktemp("results")
    table_of(row(run, 0, "q", rank) for run, rank in ranks.items()).to_parquet(
        folder / METRICS_FILE
    )
    rows = [(run, 10, "novels", "all", "loss", loss, 0, 9, 60) for run, loss in losses.items()]
    pd.DataFrame(rows, columns=list(EVALUATION_COLUMNS)).to_parquet(folder / EVALUATION_FILE)
    return folder


def output(results: Path, *options: str) -> str:
    asked = ["correlate", str(results), "--metrics", "per", *options]
    done = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_the_paradox_has_a_line_and_every_scope_a_row(results: Path) -> None:
    told = output(results, "--group", GROUP).splitlines()
    assert told[0] == "rank and performance over runs, weight at step 10"
    assert [line.split()[4] for line in told[2:5]] == ["runs", "groups", "runs"]
    assert "runs within 9 groups  27" in told[4]
    (paradox,) = [line for line in told if "Simpson's paradox: per of q and loss" in line]
    assert "+1.00 between groups" in paradox
    alone = output(results)
    assert "Simpson" not in alone and "chance alone would give about 0.05" in alone


def test_a_table_holds_what_the_library_returns(results: Path) -> None:
    opened = rs.open_results(results)
    found = rs.correlate_runs(opened.metrics, opened.evaluation, columns=["per"], group=GROUP)
    read = pd.read_csv(StringIO(output(results, "--group", GROUP, "--table", "csv")))
    pd.testing.assert_frame_equal(read, found, check_dtype=False)
    assert output(results, "--table", "markdown").startswith("| role | metric | performance |")


def test_results_without_an_evaluation_say_what_to_do(results: Path, tmp_path: Path) -> None:
    (tmp_path / METRICS_FILE).write_bytes((results / METRICS_FILE).read_bytes())
    done = CliRunner().invoke(app, ["correlate", str(tmp_path)])
    assert isinstance(done.exception, RankscopeError)
    assert "`rankscope evaluate`" in str(done.exception)
