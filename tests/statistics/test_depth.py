import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.statistics.depth import depth_profile


def table_of(values: dict[int, list[float]], **others: object) -> pd.DataFrame:
    """A metrics table with the PER of each layer at each step."""
    rows = [
        {"run": "r", "step": step, "layer": layer, "role": "q", "component": "weight", "per": per}
        | others
        for step, layers in values.items()
        for layer, per in enumerate(layers)
    ]
    return pd.DataFrame(rows).astype({"layer": "Int64"})


def test_the_slope_is_that_of_a_line_and_one_odd_layer_does_not_move_it() -> None:
    line = [0.5 + 0.02 * layer for layer in range(9)]
    odd = [*line[:4], 0.1, *line[5:]]
    found = depth_profile(table_of({0: line, 10: odd}), "per")
    assert list(found["slope"]) == pytest.approx([0.02, 0.02])
    assert list(found["layers"]) == [9, 9]


def test_a_quantity_that_spans_decades_has_the_slope_of_its_logarithm() -> None:
    table = table_of({0: [1.0] * 6})
    table["condition_number"] = 10.0 ** (2 + 0.5 * table["layer"].astype(float))
    table["condition_number_status"] = "ok"
    assert depth_profile(table, "condition_number")["slope"].item() == pytest.approx(0.5)


def test_a_lower_bound_is_not_a_value() -> None:
    table = table_of({0: [1.0] * 6})
    layer = table["layer"].astype(float)
    table["condition_number"] = 10.0 ** (2 + 0.5 * layer)
    table["condition_number_status"] = np.where(layer < 4, "ok", "lower-bound")
    bounded = layer >= 4
    table.loc[bounded, "condition_number"] = 1e3  # as much as storage lets one know
    found = depth_profile(table, "condition_number")
    assert found["layers"].item() == 4 and found["slope"].item() == pytest.approx(0.5)
    table["condition_number_status"] = "lower-bound"
    assert depth_profile(table, "condition_number")["slope"].isna().all()


@pytest.mark.parametrize("confidence", [0.05, 1.0, 95])
def test_a_level_is_a_probability_above_a_half(confidence: float) -> None:
    with pytest.raises(WrongSettingError, match="a level above"):
        depth_profile(table_of({0: [0.1, 0.2, 0.3]}), "per", confidence=confidence)


def test_a_certain_change_of_sign_is_a_reversal_and_an_uncertain_one_is_not() -> None:
    rng = np.random.default_rng(0)
    up = 0.5 + 0.02 * np.arange(12) + 1e-4 * rng.normal(size=12)
    flat = 0.5 + 0.02 * np.sin(7.0 * np.arange(12))
    found = depth_profile(table_of({0: list(up), 1: list(flat), 2: list(1 - up)}), "per")
    assert found["low"][1] < 0 < found["high"][1]
    assert list(found["reverses"]) == [False, False, True]


def test_the_interval_covers_the_slope_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    noisy = {i: list(0.1 * np.arange(12) + rng.normal(size=12)) for i in range(400)}
    found = depth_profile(table_of(noisy), "per")
    covered = ((found["low"] <= 0.1) & (found["high"] >= 0.1)).mean()
    assert 0.92 < covered < 0.99


def test_two_layers_have_no_slope_that_means_anything() -> None:
    assert depth_profile(table_of({0: [0.1, 0.2]}), "per")["slope"].isna().all()


def test_what_is_not_there_is_refused() -> None:
    table = table_of({0: [0.1, 0.2, 0.3]})
    with pytest.raises(WrongSettingError, match="unknown metric 'pr'"):
        depth_profile(table, "pr")
    with pytest.raises(RankscopeError, match="no rows with role 'k'"):
        depth_profile(table, "per", role="k")


def test_the_slope_of_replicates_is_their_mean_with_students_interval() -> None:
    slopes = {"full-0": 0.1, "full-1": 0.2, "full-2": 0.6}
    rows = [
        {"run": run, "role": "q", "component": "weight", "step": 0, "layer": layer}
        | {"per": slope * layer}
        for run, slope in {**slopes, "relora-0": 0.5}.items()
        for layer in range(5)
    ]
    found = depth_profile(pd.DataFrame(rows), "per", group=r"(.*)-\d").set_index("run")
    wanted = stats.ttest_1samp([*slopes.values()], 0).confidence_interval(0.95)
    assert found.loc["full", ["slope", "low", "high"]].tolist() == pytest.approx([0.3, *wanted])
    assert found.loc["full", "runs"] == 3
    assert found.loc["relora", "slope"] == pytest.approx(0.5)
    assert found.loc["relora", ["low", "high"]].isna().all()
