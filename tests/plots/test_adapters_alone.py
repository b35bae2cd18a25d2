"""Figures of results that hold adapters and nothing else, and of steps that count epochs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import rankscope as rs
from rankscope import plots
from tests.analysis.series import analysed
from tests.conftest import random_factors, write_adapter

ADAPTERS = {"per-adapters", "condition-numbers-adapters", "heatmap-per-adapters"}


@dataclass(frozen=True)
class Tables:
    metrics: pd.DataFrame
    training: pd.DataFrame
    evaluation: pd.DataFrame


@pytest.fixture
def alone(tmp_path: Path, rng: np.random.Generator) -> Path:
    for step in (1, 2, 3):
        write_adapter(tmp_path / "run" / f"checkpoint-{step}", random_factors(rng), scale=2.0)
    analysed(tmp_path / "run", out=tmp_path / "out")
    return tmp_path / "out"


def drawn(results: Any) -> dict[str, Any]:
    figures = {name: draw(results) for name, draw in plots.FIGURES.items()}
    return {name: figure for name, figure in figures.items() if figure is not None}


def test_adapters_alone_have_their_figures(alone: Path) -> None:
    found = drawn(rs.open_results(alone))
    assert found.keys() >= ADAPTERS and "per-weights" not in found
    titles = [ax.get_title().split()[0] for ax in found["per-adapters"].axes if ax.axison]
    assert titles == ["q", "k", "v", "o", "gate", "up", "down"]


def test_runs_of_adapters_alone_are_drawn_beside_others(results: Any) -> None:
    table = results.metrics
    kept = {"full": ["weight"], "relora": ["adapter"]}
    table = pd.concat(
        table[(table["run"] == run) & table["component"].isin(parts)] for run, parts in kept.items()
    )
    found = drawn(Tables(table, pd.DataFrame(), results.evaluation.iloc[:0]))
    assert found.keys() >= {*ADAPTERS, "per-weights"}
    titles = {ax.get_title() for ax in found["heatmap-per-adapters"].axes}
    assert "relora" in titles and "full" not in titles


def test_beside_weights_adapters_need_none(results: Any) -> None:
    assert not ADAPTERS & drawn(results).keys()


def test_cumulative_updates_have_figures_where_they_were_measured(results: Any) -> None:
    table = results.metrics
    updates = table[table["component"] == "update"].assign(component="cumulative_update")
    found = drawn(Tables(updates, pd.DataFrame(), results.evaluation.iloc[:0]))
    assert found.keys() == {"per-cumulative-updates", "heatmap-per-cumulative-updates"}


@pytest.mark.parametrize("unit", ["epoch", "step or epoch"])
def test_axes_of_steps_say_what_they_count(alone: Path, unit: str) -> None:
    record = alone / "analysis.json"
    units = unit.split(" or ")
    runs = ", ".join(f'{{"unit": "{one}"}}' for one in units)
    record.write_text(f'{{"runs": [{runs}]}}')
    results = rs.open_results(alone)
    assert results.unit == unit
    for name, figure in drawn(results).items():
        assert figure.get_supxlabel() == unit or "spectra" in name
    ax = plots.metric(results.metrics, "per", component="adapter")
    assert ax.get_xlabel() == unit
    record.write_text("{}")
    assert rs.open_results(alone).unit == "step"
