"""Runs of which one moves faster: at equal distance from the start they are the same."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from rankscope.results.results import table_of
from rankscope.statistics.differences import Sides, differences
from rankscope.statistics.equal_distance import distances_of
from tests.statistics.test_differences import row

STEPS = (0, 10, 20, 40)
SPEEDS = {"a": 0.01, "b": 0.004}
SIZES = {"q": 1.0, "k": 3.0}  # of one distance, by role
ONE = Sides(("a",), ("b",))
PLACE = ["role", "layer"]


def change(
    run: str, layer: int, role: str, size: float, step: int, **others: Any
) -> dict[str, Any]:
    """One change since step 0, relative to a matrix of norm 2."""
    sized = {"relative_size": size, "relative_size_error": 0.0, "frobenius_norm": 2 * size}
    start = {"component": "cumulative_update", "since": 0, "max_rank": 8}
    return row(run, layer, role, 0.5, step=step) | sized | start | others


def size_of(run: str, role: str, step: int) -> float:
    return SIZES[role] * SPEEDS[run] * step


def distance_of(run: str, step: float) -> float:
    """Both roles count alike, whatever their norms."""
    return float(SPEEDS[run] * step * np.sqrt((SIZES["q"] ** 2 + SIZES["k"] ** 2) / 2))


def table(shift: float = 0.0) -> pd.DataFrame:
    """PER falls by the distance, but for what is added to run b in layers that vary little."""
    rows = []
    for run in SPEEDS:
        for step in STEPS:
            for layer in range(3):
                moved = (run == "b") * (shift + 0.001 * (layer - 1))
                value = 0.9 - 0.5 * distance_of(run, step) + 0.01 * layer + moved
                rows += [row(run, layer, role, value, step=step) for role in SIZES]
                rows += [
                    change(run, layer, role, size_of(run, role, step), step)
                    for role in SIZES
                    if step
                ]
    return table_of(rows)


def test_runs_of_which_one_moves_slower_differ_at_a_step_and_not_at_a_distance() -> None:
    found = differences(table(), ONE, columns=["per"])
    roles = found[found["layer"].isna() & (found["component"] == "weight")]
    assert roles[roles["step_a"].eq(40) & roles["at"].eq("step")]["differs"].all()
    there = roles[roles["at"] == "distance"].sort_values("role")
    assert there["role"].tolist() == ["k", "q"]
    assert not there["differs"].any()
    # Run a passes the last distance of b on the way; PER is linear in it, so nothing is left.
    np.testing.assert_allclose(there["distance"], [size_of("b", role, 40) for role in "kq"])
    np.testing.assert_allclose(there["step_a"], 16)
    np.testing.assert_allclose(there["step_b"], 40)
    np.testing.assert_allclose(there["difference"], 0, atol=1e-12)
    # 0.6 of the way from step 10 to 20, along which PER of run a falls by 0.1 of a unit distance.
    np.testing.assert_allclose(there["error"], 0.6 * 0.5 * distance_of("a", 10), rtol=1e-9)


def test_each_role_is_compared_where_it_moved_equally_far_itself() -> None:
    """The k of run b moves as in run a, its q more slowly; without q, k is where it was."""
    rows = table()
    is_k = (rows["role"] == "k") & (rows["run"] == "b") & rows["relative_size"].notna()
    rows.loc[is_k, "relative_size"] *= SPEEDS["a"] / SPEEDS["b"]
    found = differences(rows, ONE, columns=["per"])
    steps = found[found["at"] == "distance"].groupby("role")[["step_a", "step_b"]].mean()
    np.testing.assert_allclose(steps.loc["k"], [40, 40])
    np.testing.assert_allclose(steps.loc["q"], [16, 40])
    alone = differences(rows[rows["role"] == "k"], ONE, columns=["per"])
    pd.testing.assert_frame_equal(
        alone[alone["at"] == "distance"].reset_index(drop=True),
        found[(found["at"] == "distance") & (found["role"] == "k")].reset_index(drop=True),
    )


def test_a_difference_at_equal_distance_is_found() -> None:
    found = differences(table(shift=0.4), ONE, columns=["per"])
    there = found[(found["at"] == "distance") & found["layer"].isna()]
    there = there[there["component"] == "weight"]
    assert there["differs"].all()
    np.testing.assert_allclose(there["difference"], 0.4)


def test_replicates_are_compared_at_a_distance_that_all_reached() -> None:
    seeds = [table().assign(run=lambda t, s=s: t["run"] + s) for s in ("0", "1")]
    late = seeds[1][(seeds[1]["run"] != "b1") | (seeds[1]["step"] <= 30)]
    found = differences(
        pd.concat([seeds[0], late]), Sides(("a0", "a1"), ("b0", "b1")), columns=["per"]
    )
    there = found[(found["at"] == "distance") & (found["role"] == "q")]
    np.testing.assert_allclose(there["distance"], size_of("b", "q", 20))
    np.testing.assert_allclose(there["step_b"], 20)


def test_a_distance_is_the_root_mean_square_over_matrices() -> None:
    curves = distances_of(table(), ["a", "b"], PLACE)
    for run, curve in curves.items():
        assert curve.index.tolist() == list(STEPS)
        np.testing.assert_allclose(curve, [distance_of(run, step) for step in STEPS])


def test_matrices_without_a_ratio_in_some_run_count_in_none() -> None:
    """As one that was zero at the start, which no change can be compared with."""
    rows = table()
    is_zero = (rows["role"] == "k") & (rows["run"] == "a") & rows["relative_size"].notna()
    rows.loc[is_zero, "relative_size"] = np.nan
    curves = distances_of(rows, ["a", "b"], PLACE)
    np.testing.assert_allclose(curves["b"], [size_of("b", "q", step) for step in STEPS])


def test_what_did_not_change_is_at_distance_zero() -> None:
    rows = [change("a", 0, "q", 0.0, 10, frobenius_norm=0.0), change("a", 0, "q", 0.1, 20)]
    curve = distances_of(table_of(rows), ["a"], PLACE)["a"]
    assert curve.to_dict() == {0.0: 0.0, 10.0: 0.0, 20.0: pytest.approx(0.1)}
    assert distances_of(table_of(rows[:1]), ["a"], PLACE) == {}


@pytest.mark.parametrize(
    ("floor", "steps"), [(0.0005, [0, 10, 20]), (0.001, [0, 20]), (0.02, [0, 20])]
)
def test_a_distance_that_may_be_rounding_is_none(floor: float, steps: list[int]) -> None:
    """‖ΔW‖ is 0.02, of which rounding may have made √8 times the floor: 7 %, 14 %, all; then 2."""
    rows = [change("a", 0, "q", s, t, noise_floor=floor) for t, s in ((10, 0.01), (20, 1.0))]
    assert distances_of(table_of(rows), ["a"], PLACE)["a"].index.tolist() == steps


def test_runs_without_changes_from_one_step_have_no_distance() -> None:
    rows = table()
    is_change = rows["component"] == "cumulative_update"
    assert distances_of(rows[~is_change], ["a", "b"], PLACE) == {}
    assert distances_of(rows[~is_change | (rows["run"] == "a")], ["a", "b"], PLACE) == {}
    rows.loc[is_change & (rows["run"] == "a"), "since"] = 10
    assert distances_of(rows, ["a", "b"], PLACE) == {}
    assert set(differences(rows, ONE, columns=["per"])["at"]) == {"step"}
