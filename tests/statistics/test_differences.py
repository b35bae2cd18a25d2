"""Differences of runs that were planted, and how often chance alone raises an alarm."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rankscope.results.results import table_of
from rankscope.statistics.differences import COLUMNS, Sides, differences

LAYERS, TRIALS = 6, 400
EXACT = {"per_error": 0.0, "sigma_error": 0.0, "noise_floor": 0.0, "status": "ok", "rows": 8}


def row(run: str, layer: int, role: str, value: float, **others: object) -> dict[str, object]:
    """One matrix of known PER."""
    place = {"run": run, "step": 10, "layer": layer, "role": role, "component": "weight"}
    exact = EXACT | {"cols": 8, "name": f"{layer}.{role}", "per": value, "per_resolved": value}
    return place | exact | others


def chance_table(
    runs: tuple[str, ...], *, between: float, within: float, rng: np.random.Generator
) -> pd.DataFrame:
    """Runs that differ by chance alone: as whole runs, and layer by layer; a trial is a step."""
    whole = between * rng.normal(size=(TRIALS, len(runs), 1))
    values = 0.7 + 0.01 * (whole + within * rng.normal(size=(TRIALS, len(runs), LAYERS)))
    values += 0.1 * rng.normal(size=(TRIALS, 1, LAYERS))  # layers differ, alike in all runs
    return table_of(
        row(run, layer, "q", values[trial, i, layer], step=trial)
        for trial in range(TRIALS)
        for i, run in enumerate(runs)
        for layer in range(LAYERS)
    )


def alarms(found: pd.DataFrame, *, of_layers: bool) -> tuple[float, float]:
    """Share of rows that differ, and three standard deviations of it under 5 %."""
    rows = found[found["layer"].notna() == of_layers]
    return rows["differs"].mean(), 3 * np.sqrt(0.05 * 0.95 / len(rows))


ONE, SIX = Sides(("a",), ("b",)), Sides(("a", "b", "c"), ("d", "e", "f"))


@pytest.mark.parametrize(
    ("sides", "between", "exact"),
    [(ONE, 1.0, True), (ONE, 0.3, False), (SIX, 0.0, True), (SIX, 3.0, True)],
)
def test_chance_alone_raises_no_more_alarms_than_stated(
    sides: Sides, between: float, exact: bool, rng: np.random.Generator
) -> None:
    """With one run a side, exact where runs differ as much as layers do; fewer where less."""
    table = chance_table(sides.runs, between=between, within=1.0, rng=rng)
    share, margin = alarms(differences(table, sides, columns=["per"]), of_layers=False)
    assert share < 0.05 + margin
    assert not exact or share > 0.05 - margin


@pytest.mark.parametrize(
    ("sides", "between"), [(ONE, 0.0), (SIX, 2.0), (Sides(("a", "b"), ("c",)), 2.0)]
)
def test_layers_raise_no_more_alarms_than_stated(
    sides: Sides, between: float, rng: np.random.Generator
) -> None:
    table = chance_table(sides.runs, between=between, within=1.0, rng=rng)
    found = differences(table, sides, columns=["per"])
    rows = found[found["layer"].notna()]
    # Layers of one trial share what they are judged by, or the run: fewer independent rows.
    margin = 3 * np.sqrt(0.05 * 0.95 / (len(rows) / LAYERS))
    assert abs(rows["differs"].mean() - 0.05) < margin


def test_with_replicates_it_is_students_test_of_the_means_over_layers(
    rng: np.random.Generator,
) -> None:
    table = chance_table(SIX.runs, between=1.0, within=1.0, rng=rng)
    found = differences(table, SIX, columns=["per"]).query("layer.isna()").set_index("step_a")
    means = table.groupby(["step", "run"])["per"].mean().unstack()
    truth = stats.ttest_ind(means[list(SIX.b)], means[list(SIX.a)], axis=1)
    index = means.index
    np.testing.assert_allclose(found["p"].reindex(index), truth.pvalue, rtol=1e-6)
    interval = truth.confidence_interval(0.95)
    np.testing.assert_allclose(
        found["spread"].reindex(index), (interval.high - interval.low) / 2, rtol=1e-6
    )


def test_with_single_runs_it_is_the_prediction_of_one_more_layer(rng: np.random.Generator) -> None:
    table = chance_table(ONE.runs, between=1.0, within=1.0, rng=rng)
    found = differences(table, ONE, columns=["per"]).query("layer.isna()").set_index("step_a")
    values = table[table["step"] == 7].pivot(index="layer", columns="run", values="per")
    change = (values["b"] - values["a"]).to_numpy()
    low, high = stats.t.interval(
        0.95, LAYERS - 1, scale=change.std(ddof=1) * np.sqrt(1 + 1 / LAYERS)
    )
    assert found["spread"][7] == pytest.approx((high - low) / 2)
    assert found["difference"][7] == pytest.approx(change.mean())


def planted(values: Mapping[str, list[float]], **others: object) -> pd.DataFrame:
    """One role; the values of its layers by run."""
    return table_of(
        row(run, layer, "q", value, **others)
        for run, some in values.items()
        for layer, value in enumerate(some)
    )


def test_a_planted_difference_is_found_and_the_layer_that_stands_out() -> None:
    all_moved = planted({"a": [0.5, 0.6, 0.7, 0.8], "b": [0.4, 0.51, 0.59, 0.7]})
    found = differences(all_moved, ONE, columns=["per"])
    assert found.columns.tolist() == list(COLUMNS)
    assert found["differs"].tolist() == [True, False, False, False, False]
    assert found["difference"][0] == pytest.approx(-0.1)
    one_moved = planted({"a": [0.5, 0.6, 0.7, 0.8], "b": [0.501, 0.599, 0.3, 0.801]})
    found = differences(one_moved, ONE, columns=["per"])
    assert found.loc[found["differs"], "layer"].tolist() == [2]


def test_the_sides_are_symmetric_and_the_order_of_rows_does_not_matter() -> None:
    table = planted({"a": [0.5, 0.6, 0.7], "b": [0.45, 0.51, 0.62]})
    there = differences(table, ONE, columns=["per"])
    back = differences(table.iloc[::-1], Sides(("b",), ("a",)), columns=["per"])
    np.testing.assert_allclose(there["difference"], -back["difference"])
    np.testing.assert_allclose(there[["p", "spread"]], back[["p", "spread"]])


@pytest.mark.parametrize("name", ["per_error", "per_resolved"])
def test_a_difference_within_its_error_is_none(name: str) -> None:
    """Both runs are off by as much as they differ: by arithmetic, or by noise below the floor."""
    moved = {"a": [0.5, 0.6, 0.7], "b": [0.4, 0.5, 0.6]}
    off = {"per_error": 0.1, "per_resolved": 0.4}[name]
    assert differences(planted(moved), ONE, columns=["per"])["differs"][0]
    found = differences(planted(moved, **{name: off}), ONE, columns=["per"])
    assert not found["differs"].any()
    assert found["error"][0] >= 0.1


def test_matrices_that_one_run_lacks_and_single_layers_are_not_judged() -> None:
    table = planted({"a": [0.5, 0.6, 0.7], "b": [0.4]})
    found = differences(table, ONE, columns=["per"])
    assert found["layers"].tolist() == [1, 1]
    assert found["spread"].isna().all()
    assert not found["differs"].any()


@pytest.mark.parametrize(
    ("windows", "begins", "is_compared"),
    [
        (("", ""), (0, 0), True),
        (("", "cycle"), (0, 0), True),
        (("within", "cycle"), (0, 0), False),
        (("", ""), (0, 5), False),
    ],
)
def test_changes_are_compared_over_one_window(
    windows: tuple[str, str], begins: tuple[int, int], is_compared: bool
) -> None:
    table = planted({"a": [0.5, 0.6], "b": [0.4, 0.5]}, component="update")
    runs = table["run"].map({"a": 0, "b": 1})
    table["window"] = [windows[i] for i in runs]
    table["since"] = [begins[i] for i in runs]
    found = differences(table, ONE, columns=["per"])
    assert bool(len(found)) is is_compared


@pytest.mark.parametrize(("ranks", "is_compared"), [((4, 4), True), ((4, 5), False)])
def test_condition_numbers_over_a_rank_are_compared_at_one_rank(
    ranks: tuple[int, int], is_compared: bool
) -> None:
    table = planted({"a": [0.5, 0.6], "b": [0.4, 0.5]}, component="adapter", spectral_norm=1.0)
    table["condition_number_r"] = 10.0
    table["numerical_rank"] = table["run"].map({"a": ranks[0], "b": ranks[1]}).astype("Int64")
    for step in (10, 11):  # at a common step, and at the last ones
        table.loc[table["run"] == "b", "step"] = step
        found = differences(table, ONE, columns=["condition_number_r"])
        assert bool(len(found)) is is_compared


def test_runs_without_a_common_step_are_compared_at_their_last() -> None:
    table = planted({"a": [0.5, 0.6, 0.7], "b": [0.4, 0.51, 0.59]})
    earlier = planted({"b": [0.9, 0.9, 0.9]}).assign(step=20)
    table.loc[table["run"] == "b", "step"] = 30
    found = differences(pd.concat([table, earlier]), ONE, columns=["per"])
    assert set(found["at"]) == {"last"}
    assert found[["step_a", "step_b"]].iloc[0].tolist() == [10, 30]
    assert found["b"][0] == pytest.approx(0.5)


def test_matrices_of_different_shapes_are_not_compared() -> None:
    table = planted({"a": [0.5, 0.6, 0.7], "b": [0.4, 0.51, 0.59]})
    table.loc[table["run"] == "b", "rows"] = 9
    assert differences(table, ONE, columns=["per"]).empty


def test_heads_of_a_layer_count_as_one() -> None:
    """They share their layer: as independent ones, they would give a spread that is too small."""
    rows = [
        row(run, layer, "o", 0.5 + 0.1 * (run == "b") * layer + 0.001 * head, head=head)
        for run in "ab"
        for layer in range(3)
        for head in range(50)
    ]
    found = differences(table_of(rows).assign(component="ov"), ONE, columns=["per"])
    whole = found[found["layer"].isna()].iloc[0]
    assert whole["layers"] == 3
    assert not whole["differs"]
