"""Runs as points: where they are, and what stands for a group."""

import numpy as np
import pandas as pd
import pytest

from rankscope import plots
from rankscope.errors import RankscopeError
from rankscope.results.columns import EVALUATION_COLUMNS
from rankscope.results.results import table_of
from rankscope.statistics.performance_measures import has_run_points

RUNS = {"a-0": (0.5, 2.0), "a-1": (0.6, 2.2), "b-0": (0.8, 1.0), "b-1": (0.7, 1.4)}


def tables(**others: float) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows = [
        {
            **{"run": run, "step": 10, "layer": layer, "role": role, "component": "weight"},
            **{"name": f"{layer}.{role}", "rows": 8, "cols": 8, "status": "ok"},
            **{"per": per, "per_resolved": per, "condition_number_90": 10 * per} | others,
        }
        for run, (per, _) in RUNS.items()
        for role in ("q", "v")
        for layer in range(2)
    ]
    scores = [
        (run, 10, task, "all", metric, value * (1 + (metric == "accuracy")), None, None, 60)
        for run, (_, value) in RUNS.items()
        for task, metric in (("blimp", "accuracy"), ("novels", "loss"))
    ]
    return table_of(rows), pd.DataFrame(scores, columns=list(EVALUATION_COLUMNS))


def points(ax, size: float) -> set[tuple[float, float]]:  # type: ignore[no-untyped-def]
    """All points of markers of this size."""
    lines = [line for line in ax.lines if line.get_markersize() == size and len(line.get_xdata())]
    drawn = [point for line in lines for point in zip(*line.get_data(), strict=True)]
    return {(round(float(x), 9), round(float(y), 9)) for x, y in drawn}


def test_every_run_is_a_point_and_every_group_has_its_mean() -> None:
    figure = plots.rank_against_performance(*tables(), group="(.*)-")
    assert [ax.get_title() for ax in figure.axes if ax.axison] == ["q  8×8", "v  8×8"]
    for ax in figure.axes[:2]:
        assert points(ax, 2.2) == {(loss, per) for per, loss in RUNS.values()}
        assert points(ax, 6.0) == {(2.1, 0.55), (1.2, 0.75)}
    assert figure.get_supxlabel() == "novels: loss (nats per token) at step 10"


def test_without_groups_there_are_runs_alone() -> None:
    figure = plots.rank_against_performance(*tables(), measure=("blimp", "all", "accuracy"))
    assert points(figure.axes[0], 2.2) == {(2 * value, per) for per, value in RUNS.values()}
    assert points(figure.axes[0], 6.0) == set()
    assert figure.get_supxlabel() == "blimp: accuracy at step 10"


def test_a_quantity_of_decades_has_its_own_axis_and_a_geometric_mean() -> None:
    figure = plots.rank_against_performance(*tables(), "condition_number_90", group="(.*)-")
    ax = figure.axes[0]
    assert ax.get_yscale() == "log"
    means = {round(float(np.sqrt(5 * 6)), 6), round(float(np.sqrt(8 * 7)), 6)}
    assert {round(y, 6) for _, y in points(ax, 6.0)} == means


def test_it_takes_four_runs() -> None:
    metrics, evaluation = tables()
    assert has_run_points(metrics, evaluation)
    few = evaluation[evaluation["run"] != "a-0"]
    assert not has_run_points(metrics, few)
    with pytest.raises(RankscopeError, match="3 runs have both"):
        plots.rank_against_performance(metrics, few)
