from __future__ import annotations

import itertools
import re

import numpy as np
import pandas as pd
import pytest

from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.statistics.subspace_means import (
    Against,
    comparisons,
    has_comparisons,
    intruder_counts,
    left_out,
    shares,
)
from tests.plots.comparisons import STEPS, subspaces_of_two_runs

UNDECIDED = None


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return subspaces_of_two_runs()


def combinations(n: int) -> list[tuple[str, ...]]:
    """Every choice of n kinds of comparison."""
    return list(itertools.combinations(("previous", "first", "last"), n))


def rows_of(**columns: object) -> pd.DataFrame:
    """Comparisons of one matrix, unless the columns say otherwise."""
    plain = {"run": "r", "layer": 0, "role": "q", "name": "w", "step": 10, "against": 0}
    plain |= {"component": "weight", "head": pd.NA, "expert": pd.NA, "status": "ok", "k": 4}
    return pd.DataFrame(plain | {"side": "left", "error": 0.0, "noise": 0.0, "null": 0.5} | columns)


@pytest.mark.parametrize(
    ("against", "pairs"),
    [
        ("previous", set(zip(STEPS[1:], STEPS, strict=False))),
        ("first", {(step, STEPS[0]) for step in STEPS[1:]}),
    ],
)
def test_each_step_is_compared_once_with_the_previous_or_the_first(
    table: pd.DataFrame, against: Against, pairs: set[tuple[int, int]]
) -> None:
    rows = comparisons(table, "overlap", role="q", against=against)
    assert set(zip(rows["step"], rows["against"], strict=True)) == pairs
    assert not rows.duplicated(["run", "name", "step", "side", "k"]).any()


def test_after_a_break_the_first_is_the_first_of_the_new_model() -> None:
    rows = rows_of(step=[10, 20, 20, 40, 50, 50], against=[0, 10, 0, 30, 40, 30], value=0.5)
    chosen = comparisons(rows.assign(measure="overlap"), "overlap", against="first")
    assert dict(zip(chosen["step"], chosen["against"], strict=True)) == {
        10: 0, 20: 0, 40: 30, 50: 30
    }  # fmt: skip
    chosen.attrs["breaks"] = {"r": 30}
    assert list(shares(chosen)["stretch"]) == [0, 0, 1, 1]


def test_shares_are_the_means_over_matrices_of_each_run_then_over_runs() -> None:
    values = {"a": [0.1, 0.3], "b": [0.8]}
    rows = pd.concat(
        rows_of(run=run, name=list(map(str, range(len(v)))), value=v, null=v, method="m")
        for run, v in values.items()
    )
    (point,) = shares(rows, hue="method").to_dict("records")
    assert point["value"] == pytest.approx((np.mean([0.1, 0.3]) + 0.8) / 2)
    assert point["null"] == pytest.approx(point["value"])
    assert list(shares(rows)["value"]) == pytest.approx([0.2, 0.8])


def test_bounds_contain_every_mean_that_the_bounds_of_the_matrices_allow() -> None:
    rows = rows_of(name=["a", "b"], value=[0.3, 0.95], error=[0.02, 0.01], noise=[0.1, 0.2])
    (point,) = shares(rows).to_dict("records")
    assert point["low"] == pytest.approx((0.18 + 0.74) / 2)
    assert point["high"] == pytest.approx((0.42 + 1.0) / 2)


def test_a_matrix_whose_rounding_leaves_nothing_certain_may_have_any_share() -> None:
    (point,) = shares(rows_of(name=["a", "b"], value=[0.4, 0.6], noise=[np.nan, 0.0])).to_dict(
        "records"
    )
    assert (point["low"], point["high"]) == pytest.approx((0.3, 0.8))


def test_where_a_null_is_missing_there_is_no_mean_null_beside_the_mean() -> None:
    rows = rows_of(step=[10, 10, 20], name=["a", "b", "a"], value=0.5, null=[0.5, np.nan, 0.7])
    assert np.array_equal(shares(rows)["null"], [np.nan, 0.7], equal_nan=True)


def test_comparisons_without_a_number_do_not_enter_and_are_counted() -> None:
    rows = rows_of(
        name=["a", "b", "c"], value=[0.4, np.nan, np.nan], status=["ok", "no-gap", "zero"]
    )
    assert shares(rows)["value"].item() == 0.4
    assert left_out(rows) == "left out: 1 of 3 (no gap), 1 of 3 (zero)"
    assert left_out(rows[:1]) == ""


def test_the_range_of_intruders_is_exactly_what_the_three_counts_allow() -> None:
    """Every way in which three vectors can be decided without and with storage."""
    decided = [(a, s) for a in (True, False, UNDECIDED) for s in (a, UNDECIDED)]
    possible: dict[tuple[int, int, int], set[int]] = {}
    for vectors in itertools.product(decided, repeat=3):
        arithmetic, storage = zip(*vectors, strict=True)
        counts = (sum(a is True for a in arithmetic), arithmetic.count(None), storage.count(None))
        certain = sum(s is True for s in storage)
        possible.setdefault(counts, set()).update(range(certain, certain + counts[2] + 1))
    counts_of = pd.DataFrame(possible.keys(), columns=["value", "error", "noise"])
    points = intruder_counts(rows_of(**counts_of, run=range(len(counts_of)), k=3))
    assert list(points["value"]) == list(counts_of["value"])
    assert list(points["low"]) == [min(truths) for truths in possible.values()]
    assert list(points["high"]) == [max(truths) for truths in possible.values()]


@pytest.mark.parametrize(
    ("table_of", "wanted", "error", "message"),
    [
        (lambda t: t.iloc[:0], {}, RankscopeError, "call `analyze` with `subspaces`"),
        (
            lambda t: t,
            {"against": "other"},
            WrongSettingError,
            "choose one of previous, first, last",
        ),
        (lambda t: t, {"component": "gradient"}, WrongSettingError, "holds weight, merge"),
        (lambda t: t, {"role": "v"}, WrongSettingError, "no rows with role 'v'"),
        (lambda t: t[t["measure"] != "overlap"], {}, RankscopeError, "no overlap of 'weight'"),
    ],
)
def test_what_is_not_there_is_answered_in_one_line(
    table: pd.DataFrame, table_of: object, wanted: dict[str, str], error: type, message: str
) -> None:
    assert callable(table_of)
    with pytest.raises(error, match=re.escape(message)):
        comparisons(table_of(table), "overlap", **wanted)  # type: ignore[arg-type]


def test_a_measure_that_was_not_taken_is_not_there(table: pd.DataFrame) -> None:
    assert has_comparisons(table, "intruders", "weight")
    assert not has_comparisons(table, "intruders", "merge")
    assert not has_comparisons(table.iloc[:0], "overlap", "weight")


PAIRS = {
    "previous": {(10, 0), (20, 10), (40, 30), (50, 40)},
    "first": {(10, 0), (20, 0), (40, 30), (50, 30)},
    "last": {(0, 20), (10, 20), (30, 50), (40, 50)},
}


@pytest.mark.parametrize("measured", [set(some) for n in (1, 2, 3) for some in combinations(n)])
def test_whatever_was_measured_no_comparison_is_taken_for_another(measured: set[str]) -> None:
    """A model breaks at step 30. Some comparisons are of two kinds, and are in both."""
    every = sorted(set().union(*(PAIRS[kind] for kind in measured)))
    rows = rows_of(step=[a for a, _ in every], against=[b for _, b in every], value=0.5)
    for against, pairs in PAIRS.items():
        wanted = pairs & set(every)
        try:
            chosen = comparisons(rows.assign(measure="overlap"), "overlap", against=against)  # type: ignore[arg-type]
        except RankscopeError as error:
            assert not wanted and f"against the {against} checkpoint" in str(error)
        else:
            assert set(zip(chosen["step"], chosen["against"], strict=True)) == wanted
