from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from rankscope.statistics.many_at_once import MOST, centres
from rankscope.statistics.replicates import Over
from rankscope.statistics.step_summary import (
    Cuts,
    band_text,
    cuts_of,
    noise_matters,
    summarised_over,
    summary,
)


def rows_of(values: list[float], **columns: object) -> pd.DataFrame:
    """One step of one run, with a layer for every value of both metrics."""
    rows: dict[str, object] = {
        "run": "a",
        "step": 5,
        "layer": range(len(values)),
        "rows": 64,
        "cols": 32,
        "noise_share": 0.0,
        "per": values,
        "condition_number": values,
        "condition_number_status": "ok",
    }
    return pd.DataFrame(rows | columns)


def test_per_is_summarised_by_mean_minimum_and_maximum() -> None:
    point = summary(rows_of([0.2, 0.3, 0.7]), "per").iloc[0]
    assert point[["centre", "low", "high"]].tolist() == pytest.approx([0.4, 0.2, 0.7])


def test_condition_numbers_are_summarised_by_median_and_quantiles() -> None:
    values = [10.0**k for k in range(11)]
    point = summary(rows_of(values), "condition_number").iloc[0]
    assert point[["centre", "low", "high"]].tolist() == pytest.approx([1e5, 1e1, 1e9])


def log_median(*values: float) -> float:
    of_one = np.zeros(len(values), np.intp)
    return float(centres(np.array(values), of_one, 1, log=True, band=MOST).centre[0])


def test_the_median_of_two_is_their_geometric_mean() -> None:
    assert log_median(100.0, 1.0) == pytest.approx(10)


def test_a_quantile_beside_an_infinite_value_is_infinite() -> None:
    assert log_median(1.0, np.inf) == math.inf
    assert log_median(1.0, 2.0, np.inf) == 2.0


@pytest.mark.parametrize(
    ("censored", "is_bound"),
    [
        ([], False),
        ([4], False),  # the largest: wherever it really is, the median stays
        ([3, 4], False),
        ([2], True),
        ([0], True),  # it may be the largest, and the next one the median
        ([0, 1, 2, 3, 4], True),
    ],
)
def test_a_median_is_a_bound_where_censored_values_could_raise_it(
    censored: list[int], is_bound: bool
) -> None:
    status = ["lower-bound" if i in censored else "ok" for i in range(5)]
    rows = rows_of([1.0, 2.0, 3.0, 4.0, 5.0], condition_number_status=status)
    point = summary(rows, "condition_number").iloc[0]
    assert bool(point["bound"]) is is_bound
    assert point["centre"] == 3.0


def test_a_zero_matrix_is_counted_and_does_not_enter() -> None:
    point = summary(rows_of([0.2, math.nan, 0.4]), "per").iloc[0]
    assert (point["undefined"], point["centre"]) == (1, pytest.approx(0.3))


def test_a_step_of_zero_matrices_only_has_no_centre() -> None:
    point = summary(rows_of([math.nan, math.nan]), "per").iloc[0]
    assert math.isnan(point["centre"])
    assert point["undefined"] == 2


def test_nullable_columns_are_summarised_like_plain_ones() -> None:
    rows = rows_of([1.0, 2.0]).assign(numerical_rank=pd.array([4, pd.NA], dtype="Int64"))
    point = summary(rows, "numerical_rank").iloc[0]
    assert (point["centre"], point["undefined"]) == (4, 1)


@pytest.mark.parametrize("share", [0.0, 1e-5, 1e-4, 1e-3, 0.05, 0.5, 1.0])
def test_noise_matters_in_older_results_where_it_moves_the_entropy_by_a_hundredth(
    share: float,
) -> None:
    moved = share * math.log(32 / share) if share else 0.0
    assert noise_matters(rows_of([0.5], noise_share=share)).tolist() == [moved > 0.01]


def test_noise_matters_in_a_vector_that_is_nothing_else() -> None:
    assert noise_matters(rows_of([0.5], rows=1, noise_share=1.0)).all()


def test_an_unknown_noise_share_does_not_matter() -> None:
    assert not noise_matters(rows_of([0.5], noise_share=math.nan)).any()


@pytest.mark.parametrize(
    ("per", "resolved", "matters"),
    [(0.5, 0.5, False), (0.5, 0.4951, False), (0.5, 0.49, True), (0.5, math.nan, True),
     (math.nan, math.nan, False)],
)  # fmt: skip
def test_noise_matters_where_per_counts_what_is_not_above_it(
    per: float, resolved: float, matters: bool
) -> None:
    rows = rows_of([per, 0.5], noise_share=0.9).assign(per_resolved=[resolved, 0.5])
    assert noise_matters(rows).tolist() == [matters, False]


def test_changes_over_different_windows_are_never_one_point_nor_one_series() -> None:
    rows = rows_of([0.1, 0.3]).assign(window=["within", "cycle"])
    points = summary(rows, "per")
    assert dict(zip(points["window"], points["centre"], strict=True)) == {
        "cycle": 0.3,
        "within": 0.1,
    }
    assert summary(rows.drop(columns="window"), "per")["centre"].tolist() == pytest.approx([0.2])


def test_norms_are_not_marked_for_noise() -> None:
    rows = rows_of([0.5], noise_share=0.5).assign(spectral_norm=1.0)
    assert not summary(rows, "spectral_norm")["noisy"].any()
    assert summary(rows, "per")["noisy"].all()


def test_it_is_said_what_the_band_goes_over() -> None:
    rows = rows_of([0.1, 0.2], head=pd.array([pd.NA, pd.NA], dtype="Int64"), role=["q", "q"])
    assert str(summarised_over(rows)) == "layers"
    assert str(summarised_over(rows.assign(head=[0, 1]))) == "layers and heads"
    several = summarised_over(rows.assign(role=["q", "k"], head=[0, 1]))
    assert str(several) == "layers, roles and heads"
    assert not summarised_over(rows.iloc[:1])
    assert band_text("per", Over("layers")) == "min to max over layers"
    assert band_text("condition_number_90", Over("layers")) == "10 to 90 % of layers"


def line_of(steps: list[int], **columns: object) -> pd.DataFrame:
    """One matrix of one run at several steps."""
    rows = pd.concat(rows_of([0.1]).assign(step=step) for step in steps)
    return rows.reset_index(drop=True).assign(**columns)  # type: ignore[arg-type]


def stretches(rows: pd.DataFrame, **cuts: object) -> list[list[int]]:
    """Steps that a line joins."""
    points = summary(rows, "per", cuts=Cuts(**cuts))  # type: ignore[arg-type]
    by_stretch = points.groupby(["window", "stretch"], sort=False)
    return [list(part["step"]) for _, part in by_stretch]


def test_a_line_without_cuts_is_whole() -> None:
    assert stretches(line_of([0, 10, 20]), breaks={"b": 10}, restarts={"a": [10]}) == [[0, 10, 20]]


def test_a_line_is_cut_where_another_model_begins() -> None:
    assert stretches(line_of([0, 10, 20, 30]), breaks={"a": 20}) == [[0, 10], [20, 30]]
    assert stretches(line_of([0, 10, 30]), breaks={"a": 20}) == [[0, 10], [30]]


def test_a_line_is_cut_where_windows_of_another_kind_are_between() -> None:
    kinds = ["cycle", "cycle", "within", "within", "cycle"]
    rows = line_of([10, 20, 25, 28, 30], window=kinds)
    assert stretches(rows) == [[10, 20], [30], [25, 28]]


def test_matrices_of_two_kinds_at_the_same_steps_do_not_cut_each_other() -> None:
    both = pd.concat([line_of([10, 20], window=kind) for kind in ("cycle", "")])
    assert stretches(both) == [[10, 20], [10, 20]]


def test_parts_of_two_cycles_are_not_joined() -> None:
    rows = line_of([5, 10, 15, 20], window="within")
    assert stretches(rows, restarts={"a": [10]}) == [[5, 10], [15, 20]]
    assert stretches(rows.assign(window="cycle"), restarts={"a": [10]}) == [[5, 10, 15, 20]]


def test_runs_that_make_up_one_line_are_cut_by_their_own_windows_alone() -> None:
    steady = line_of([10, 30], window="")
    other = line_of([20], window="cycle", run="b")
    points = summary(pd.concat([steady, other]).assign(method="m"), "per", hue="method")
    assert points.loc[points["window"] == "", "stretch"].nunique() == 1


def test_breaks_are_kept_beside_the_table_and_restarts_are_its_merges() -> None:
    table = line_of([10, 20], component=["merge", "weight"])
    table.attrs["breaks"] = {"a": 20}
    cuts = cuts_of(table)
    assert (dict(cuts.breaks), dict(cuts.restarts)) == ({"a": 20}, {"a": [10]})
