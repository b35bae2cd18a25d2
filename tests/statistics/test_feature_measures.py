"""Metrics of features take the place of an evaluation, as means over layers."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import rankscope as rs
from rankscope.cli.app import app
from rankscope.errors import WrongSettingError
from rankscope.results.columns import METRICS_FILE, REPRESENTATIONS_FILE
from rankscope.results.representation_tables import typed_representations
from rankscope.results.results import table_of
from tests.statistics.test_differences import row
from tests.statistics.test_run_correlation import GROUP, arms


def represented(values: dict[str, float], *, layers: int = 2) -> pd.DataFrame:
    """RankMe of two layers whose mean is given, and of the embedding, which is another place."""
    rows = [
        {
            **{"run": run, "step": 10, "text": "novels", "features": "all", "layer": layer},
            "at": "block" if layer >= 0 else "embedding",
            "rankme": value + (layer - 0.5 if layer >= 0 else 99.0),
        }
        for run, value in values.items()
        for layer in range(-1, layers)
    ]
    return typed_representations(pd.DataFrame(rows))


def test_a_measure_is_the_mean_over_layers_and_has_none_where_a_layer_has_none() -> None:
    table = represented({"a": 7.0, "b": 9.0})
    table.loc[table.index[-1], "rankme"] = np.nan
    found = rs.feature_measures(table, ["rankme"]).set_index(["run", "group"])["value"]
    assert found.to_dict() == {("a", "block"): 7.0, ("a", "embedding"): 106.0} | {
        ("b", "embedding"): 108.0
    }
    last = rs.feature_measures(table.assign(features="last"), ["rankme"])
    assert set(last["task"]) == {"novels last"}
    assert rs.feature_measures(table, []).empty
    assert rs.feature_measures(table, "rankme").equals(rs.feature_measures(table, ["rankme"]))
    with pytest.raises(WrongSettingError, match="unknown number of features 'rank': choose"):
        rs.feature_measures(table, ["rank"])
    with pytest.raises(WrongSettingError, match=r"^(?!.*rankme_low).*rankme"):
        rs.feature_measures(table.assign(rankme_low=1.0), ["rank"])


def test_runs_whose_weights_have_a_higher_rank_may_have_features_of_a_lower_one(
    tmp_path: Path,
) -> None:
    ranks, features = arms(np.random.default_rng(2), between=0.2, within=-0.05)
    metrics = table_of(row(run, 0, "q", rank) for run, rank in ranks.items())
    table = represented({run: 10 * one for run, one in features.items()})
    found = rs.correlate_runs(
        metrics, rs.feature_measures(table), columns=["per"], group=GROUP
    ).query("method == 'spearman' and group == 'block'")
    assert set(found["metric"]) == {"features.rankme"}
    values = found.set_index("scope")["value"]
    assert values["within"] < -0.99 and values["between"] > 0.9
    metrics.to_parquet(tmp_path / METRICS_FILE)
    table.to_parquet(tmp_path / REPRESENTATIONS_FILE)
    asked = ["correlate", str(tmp_path), "--features", "rankme", "--group", GROUP]
    done = CliRunner().invoke(app, [*asked, "--metrics", "per"], catch_exceptions=False)
    assert done.stdout.startswith("rank and features over runs, weight at step 10\n")
    assert done.stdout.splitlines()[1].split()[:3] == ["role", "metric", "features"]
    assert "novels block features.rankme" in done.stdout and "Simpson's paradox" in done.stdout
