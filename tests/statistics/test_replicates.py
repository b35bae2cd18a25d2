from __future__ import annotations

import math
import statistics
from typing import Any

import pandas as pd
import pytest

from rankscope.errors import WrongSettingError
from rankscope.statistics.replicates import (
    RUN_GROUP,
    at_common_steps,
    by_group,
    grouped,
    groups_of,
)
from rankscope.statistics.step_summary import (
    Cuts,
    band_text,
    line_text,
    summarised_over,
    summary,
)

SEEDS = ["full-0", "full-1", "full-2"]


def rows_of(by_run: dict[str, list[float]], *, step: int = 5, **columns: Any) -> pd.DataFrame:
    """One step, with a layer for every value of each run, of both metrics."""
    rows = [
        {"run": run, "step": step, "layer": layer, "per": x, "condition_number": x}
        for run, values in by_run.items()
        for layer, x in enumerate(values)
    ]
    about: dict[str, Any] = {"noise_share": 0.0, "condition_number_status": "ok"}
    return pd.DataFrame(rows).assign(**(about | columns))


def point(rows: pd.DataFrame, column: str = "per") -> pd.Series[Any]:
    (name,) = grouped(rows, "full")[RUN_GROUP].unique()
    (only,) = (row for _, row in summary(grouped(rows, "full"), column, hue=RUN_GROUP).iterrows())
    assert only[RUN_GROUP] == name == "full"
    return only


@pytest.mark.parametrize(
    ("pattern", "groups"),
    [
        (r"(.*)-seed\d+", ["full", "relora", "other"]),  # what the parentheses capture
        (r"full|relora", ["full", "relora", "other"]),  # or all that matches
        (r"^(\w+).*(\d)$", ["full-1", "relora-2", "other"]),
        (r"(full)|(relora)", ["full", "relora", "other"]),  # a part that takes no part
        (r"relora.*", ["full-seed1", "relora-seed2", "other"]),
    ],
)
def test_runs_that_match_alike_have_one_name(pattern: str, groups: list[str]) -> None:
    runs = ["full-seed1", "relora-seed2", "other"]
    assert list(groups_of(runs, pattern).values()) == groups


@pytest.mark.parametrize(
    ("pattern", "complaint"),
    [
        ("lora-[", "not a regular expression: unterminated character set"),
        ("seed", "matches no run: there are full-0, full-1, full-2"),
        ("x*", "matches no run"),
        ("(x)?", "matches no run"),
    ],
)
def test_a_pattern_that_makes_no_group_is_refused(pattern: str, complaint: str) -> None:
    with pytest.raises(WrongSettingError, match="in `group`") as caught:
        groups_of(SEEDS, pattern)
    assert complaint in str(caught.value)


def test_many_runs_are_not_all_listed() -> None:
    with pytest.raises(WrongSettingError) as caught:
        groups_of([f"run-{i}" * 5 for i in range(1000)], "full")
    assert "992 others" in str(caught.value) and len(str(caught.value)) < 500


def test_a_run_alone_never_slips_into_a_group_of_its_name() -> None:
    with pytest.raises(WrongSettingError, match="also the name of a run"):
        groups_of(["full", "full-0", "full-1"], r"(\w+)-\d")


@pytest.mark.parametrize(
    ("runs", "pattern"),
    [
        (["a-b_c-1", "a_b-c-1"], r"^(.*)_(.*)-\d$"),  # a-b and c, a and b-c
        (["lr1", "old-lr1"], r"^(lr1)|old-(.*)"),
    ],
)
def test_runs_that_do_not_match_alike_are_never_one_group(runs: list[str], pattern: str) -> None:
    with pytest.raises(WrongSettingError, match="of runs that do not match alike, such as"):
        groups_of(runs, pattern)


def test_lines_are_said_once() -> None:
    with pytest.raises(WrongSettingError, match="`group` and `hue` 'layer'"):
        by_group(rows_of({"full-0": [1.0]}), "full", "layer")
    with pytest.raises(WrongSettingError, match="no column 'run'"):
        grouped(pd.DataFrame({"step": [1]}), "full")


def test_grouping_leaves_the_table_alone() -> None:
    table = rows_of({"full-0": [1.0]})
    table.attrs["unit"] = "epoch"
    assert grouped(table, "full").attrs == {"unit": "epoch"}
    assert RUN_GROUP not in table


def test_each_run_counts_once_however_many_matrices_it_has() -> None:
    by_run = {"full-0": [0.1, 0.2, 0.3, 0.4], "full-1": [0.9], "full-2": [0.5, 0.7]}
    means = [statistics.mean(values) for values in by_run.values()]
    found = point(rows_of(by_run))
    assert found["centre"] == pytest.approx(statistics.mean(means))
    assert (found["low"], found["high"]) == pytest.approx((min(means), max(means)))


def test_a_band_is_as_wide_as_its_runs_differ_and_only_a_run_alone_has_none() -> None:
    same = point(rows_of({"full-0": [0.5, 0.7], "full-1": [0.6]}))
    assert same[["low", "high"]].tolist() == pytest.approx([0.6, 0.6])
    for alone in ({"full-0": [0.5, 0.7]}, {"full-0": [0.5, 0.7], "full-1": [math.nan]}):
        assert point(rows_of(alone))[["low", "high"]].isna().all()


def test_condition_numbers_are_medians_of_medians_from_the_least_to_the_greatest() -> None:
    by_run = {"full-0": [1e1, 1e3, 1e9], "full-1": [1e7], "full-2": [1e2, 1e4]}
    found = point(rows_of(by_run), "condition_number")
    assert found[["centre", "low", "high"]].tolist() == pytest.approx([1e3, 1e3, 1e7])


@pytest.mark.parametrize(
    ("censored", "is_bound"),
    [
        ([], False),
        (["full-2"], False),  # the greatest: wherever it is, the median stays
        (["full-0"], True),
        (["full-1"], True),
        (SEEDS, True),
    ],
)
def test_a_median_over_runs_is_a_bound_where_censored_runs_could_raise_it(
    censored: list[str], is_bound: bool
) -> None:
    rows = rows_of({"full-0": [10.0] * 3, "full-1": [20.0] * 3, "full-2": [30.0] * 3})
    rows.loc[rows["run"].isin(censored), "condition_number_status"] = "lower-bound"
    found = point(rows, "condition_number")
    assert (found["centre"], bool(found["bound"])) == (20, is_bound)


def test_a_run_whose_matrices_have_no_value_makes_the_point_hollow() -> None:
    found = point(rows_of({"full-0": [0.2, 0.4], "full-1": [math.nan, math.nan]}))
    assert (found["centre"], found["undefined"]) == (pytest.approx(0.3), 2)


def test_one_run_has_no_band_where_others_have_one_over_runs() -> None:
    rows = rows_of({"full-0": [0.1, 0.3], "full-1": [0.2, 0.4], "relora-0": [0.5, 0.7]})
    points = summary(grouped(rows, "full|relora"), "per", hue=RUN_GROUP).set_index(RUN_GROUP)
    assert points.loc["full", ["low", "high"]].tolist() == pytest.approx([0.2, 0.3])
    assert points.loc["relora", "centre"] == pytest.approx(0.6)
    assert points.loc["relora", ["low", "high"]].isna().all()


def test_steps_that_some_run_lacks_are_left_out_and_counted() -> None:
    two = {"full-0": [0.1, 0.3], "full-1": [0.2, 0.4]}
    rows = pd.concat(
        [rows_of(two), rows_of({"full-0": [0.9]}, step=6), rows_of(two, step=7)], ignore_index=True
    )
    table = grouped(rows, "full")
    points = summary(table, "per", hue=RUN_GROUP)
    assert points["step"].tolist() == [5, 7]
    assert points["stretch"].nunique() == 1  # the same model goes on: the line is whole
    over = summarised_over(table, hue=RUN_GROUP)
    assert (str(over), over.left_out) == ("layers, then over 2 runs", 1)


def test_windows_of_another_kind_are_other_points_with_runs_of_their_own() -> None:
    cycle = rows_of({"full-0": [0.1], "full-1": [0.3]}, window="cycle")
    rows = pd.concat([cycle, rows_of({"full-0": [0.8]}, window="within")], ignore_index=True)
    assert at_common_steps(grouped(rows, "full"), RUN_GROUP).all()
    points = summary(grouped(rows, "full"), "per", hue=RUN_GROUP).set_index("window")["centre"]
    assert points.to_dict() == pytest.approx({"cycle": 0.2, "within": 0.8})


def test_a_line_of_runs_is_cut_where_one_of_them_begins_another_model() -> None:
    both = {"full-0": [0.1], "full-1": [0.2]}
    rows = pd.concat([rows_of(both, step=step) for step in (0, 10, 20)], ignore_index=True)
    points = summary(grouped(rows, "full"), "per", hue=RUN_GROUP, cuts=Cuts(breaks={"full-1": 20}))
    assert points["stretch"].tolist() == [0, 0, 1]


def test_runs_without_a_common_step_are_refused() -> None:
    rows = pd.concat(
        [rows_of({"full-0": [0.1]}), rows_of({"full-1": [0.1]}, step=6)], ignore_index=True
    )
    with pytest.raises(WrongSettingError, match="no step in common: full-0, full-1"):
        summary(grouped(rows, "full"), "per", hue=RUN_GROUP)


def test_it_is_said_how_many_runs_a_line_is_of() -> None:
    layers = {"full-0": [0.1, 0.3], "full-1": [0.2, 0.4], "relora-0": [0.5], "lora-0": [0.6]}
    layers |= {"lora-1": [0.5]}
    over = summarised_over(grouped(rows_of(layers), r"^\w+"), hue=RUN_GROUP)
    assert line_text("per", over) == "mean over layers, then over 2 runs (relora: 1)"
    assert band_text("condition_number", over) == "min to max over 2 runs (relora: 1)"
    alone = {"full-0": [0.1], "a": [0.2], "b": [0.3], "c": [0.2]} | layers
    assert summarised_over(grouped(rows_of(alone), "^f.*|^l.*|^r.*"), hue=RUN_GROUP).runs == "1 run"
    many = {f"{n}-{i}": [0.1] for n in range(1, 6) for i in range(n)}
    assert summarised_over(grouped(rows_of(many), r"(\d)-"), hue=RUN_GROUP).runs == "1–5 runs"
