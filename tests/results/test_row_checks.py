"""Rows that no analysis writes are refused when a table is opened, before anything is drawn."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rankscope.analysis.analyze import analyze
from rankscope.errors import RankscopeError, RankscopeWarning
from rankscope.results.columns import METRICS_FILE
from rankscope.results.results import open_results
from tests.conftest import write_full_run


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    run = write_full_run(folder / "run", np.random.default_rng(3))
    analyze(run, components=["weight", "update"], out=folder / "out", jobs=1)
    return folder / "out"


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("step", -5, "a row has the step -5"),
        ("step", 5, "two rows are of step 5 of"),
        ("per", math.inf, "a row has the per inf"),
        ("per", 1.1, "a row has the per 1.1"),
        ("entry_gini", -0.1, "a row has the entry_gini -0.1"),
        ("effective_rank", math.inf, "a row has the effective_rank inf"),
        ("role", None, "a row has no role"),
    ],
)
def test_a_row_that_no_analysis_writes_is_damage(
    results: Path, tmp_path: Path, column: str, value: Any, said: str
) -> None:
    table = pd.read_parquet(results / METRICS_FILE)
    table = table.assign(**{column: value, "since": pd.NA if column == "step" else table["since"]})
    table.to_parquet(tmp_path / METRICS_FILE)
    (tmp_path / "analysis.json").write_bytes((results / "analysis.json").read_bytes())
    with (
        pytest.warns(RankscopeWarning, match="not what was written"),
        pytest.raises(RankscopeError, match=said) as caught,
    ):
        _ = open_results(tmp_path).metrics
    assert caught.value.reason == "damaged"


def test_what_an_analysis_writes_passes(results: Path) -> None:
    assert len(open_results(results).metrics) > 0


def test_text_among_the_numbers_of_a_log_is_missing(results: Path, tmp_path: Path) -> None:
    (tmp_path / METRICS_FILE).write_bytes((results / METRICS_FILE).read_bytes())
    lines = ("run,step,loss,note", "run,1,0.5,a", "run,3,low,c")
    (tmp_path / "training.csv").write_text("\n".join(lines))
    training = open_results(tmp_path).training
    assert training["step"].tolist() == [1, 3]
    assert training["loss"].dtype == float and training["loss"].isna().tolist() == [False, True]
    assert training["note"].tolist() == ["a", "c"]
