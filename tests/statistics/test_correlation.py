from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import pytest

import rankscope as rs
from rankscope.errors import RankscopeError
from rankscope.statistics.co_movement import FEWEST, FEWEST_FOR_INTERVAL, later_changes
from rankscope.statistics.correlation import COLUMNS

STEPS = 40
LEVELS, DIFFERENCES = "levels", "differences"


def ranks_of(
    per: Sequence[float] | np.ndarray,
    *,
    steps: Sequence[int] | None = None,
    run: str = "a",
    role: str = "q",
    layers: int = 1,
    **columns: object,
) -> pd.DataFrame:
    """Metrics rows of one role, the same in every layer."""
    at = range(len(per)) if steps is None else steps
    rows = [
        {"run": run, "step": step, "layer": layer, "role": role, "component": "weight", "per": x}
        for step, x in zip(at, per, strict=True)
        for layer in range(layers)
    ]
    same = {"rows": 64, "cols": 64, "noise_share": 0.0, "condition_number": 10.0}
    same |= {"condition_number_status": "ok"}
    return pd.DataFrame(rows).assign(**(same | columns))  # type: ignore[arg-type]


def reached(
    value: Sequence[float] | np.ndarray,
    *,
    steps: Sequence[int] | None = None,
    run: str = "a",
    measure: tuple[str, str, str] = ("novels", "all", "loss"),
) -> pd.DataFrame:
    """Rows of the evaluation table, of one measure."""
    at = range(len(value)) if steps is None else steps
    task, group, metric = measure
    return pd.DataFrame({"run": run, "step": at, "value": value}).assign(
        task=task, group=group, metric=metric
    )


def found(
    x: Sequence[float] | np.ndarray, y: Sequence[float] | np.ndarray
) -> Mapping[tuple[str, str], pd.Series]:
    """Correlations of PER and loss by form and method."""
    table = rs.correlate(ranks_of(x), reached(y), columns=["per"])
    return {(row["form"], row["method"]): row for _, row in table.iterrows()}


def walks(seed: int) -> np.ndarray:
    """Two independent random walks."""
    return np.random.default_rng(seed).normal(size=(2, STEPS)).cumsum(axis=1)


@pytest.mark.parametrize("sign", [1, -1], ids=["rising", "falling"])
def test_a_monotone_function_has_spearman_one_in_levels(sign: int) -> None:
    x = np.random.default_rng(0).normal(size=STEPS)
    one = found(x, sign * np.exp(x))[LEVELS, "spearman"]
    assert one["value"] == pytest.approx(sign)


def test_a_line_has_pearson_one_in_both_forms() -> None:
    x = np.random.default_rng(1).normal(size=STEPS)
    rows = found(x, 3 - 2 * x)
    assert rows[LEVELS, "pearson"]["value"] == pytest.approx(-1)
    assert rows[DIFFERENCES, "pearson"]["value"] == pytest.approx(-1)


@pytest.fixture(scope="module")
def independent() -> pd.DataFrame:
    """Correlations of many pairs of independent walks."""
    pairs = [walks(seed) for seed in range(100)]
    return pd.concat(row.to_frame().T for x, y in pairs for row in found(x, y).values())


@pytest.mark.slow
def test_levels_of_independent_walks_correlate_and_their_differences_do_not(
    independent: pd.DataFrame,
) -> None:
    value = independent["value"].astype(float)
    size = value.abs().groupby(independent["form"]).mean()
    assert size[LEVELS] > 0.35
    # The mean of |r| of n independent pairs is about √(2/(πn)).
    kept = len(later_changes(np.zeros(STEPS)))
    assert size[DIFFERENCES] == pytest.approx(math.sqrt(2 / math.pi / kept), rel=0.3)
    assert abs(value[independent["form"] == DIFFERENCES].mean()) < 0.05


def test_levels_have_no_interval(independent: pd.DataFrame) -> None:
    """Intervals of levels of unrelated walks miss zero in half of all cases, however resampled."""
    bounds = independent.set_index("form")[["ci_low", "ci_high"]].astype(float)
    assert bounds.loc[LEVELS].isna().all(axis=None)
    assert bounds.loc[DIFFERENCES].notna().all(axis=None)


def test_steps_that_move_together_are_found_in_differences() -> None:
    x, noise = walks(7)
    row = found(x, 2 * x + noise)[DIFFERENCES, "pearson"]
    assert row["ci_low"] > 0.5
    assert row["ci_low"] < row["value"] < row["ci_high"]


def test_the_order_of_rows_does_not_matter() -> None:
    rng = np.random.default_rng(2)
    metrics = pd.concat(
        ranks_of(rng.random(12), run=run, role=role, layers=3) for run in "ab" for role in "qk"
    ).assign(per=rng.random(144))
    evaluation = pd.concat(reached(rng.random(12), run=run) for run in "ab")
    shuffled = [table.sample(frac=1, random_state=3) for table in (metrics, evaluation)]
    here, there = rs.correlate(metrics, evaluation), rs.correlate(*shuffled)
    pd.testing.assert_frame_equal(here, there, check_exact=True)


def test_a_metric_that_stands_still_does_so_in_any_order() -> None:
    still = np.random.default_rng(4).random(7)
    metrics = pd.concat(ranks_of([x] * STEPS).assign(layer=i) for i, x in enumerate(still))
    table = rs.correlate(
        metrics.sample(frac=1, random_state=5), reached(np.arange(STEPS)), columns=["per"]
    )
    assert table[["value", "ci_low", "ci_high"]].isna().all(axis=None)
    assert set(table["n"]) == {STEPS, len(later_changes(np.zeros(STEPS)))}


def test_a_row_does_not_depend_on_the_other_rows() -> None:
    x, y = walks(8)
    metrics = pd.concat([ranks_of(x), ranks_of(y, role="k"), ranks_of(y, run="b")])
    evaluation = pd.concat(
        [reached(y), reached(x, run="b"), reached(x, measure=("t", "all", "loss"))]
    )
    every = rs.correlate(metrics, evaluation, columns=["per"]).query(
        "run == 'a' and role == 'q' and task == 'novels'"
    )
    alone = rs.correlate(ranks_of(x), reached(y), columns=["per"])
    pd.testing.assert_frame_equal(every.reset_index(drop=True), alone)


def test_steps_that_only_one_table_has_are_left_out() -> None:
    x, y = walks(9)
    steps = range(0, 10 * STEPS, 10)
    evens = range(0, 10 * STEPS, 20)
    more = pd.concat([reached(y[::2], steps=evens), reached([9.0], steps=[5])])
    pd.testing.assert_frame_equal(
        rs.correlate(ranks_of(x, steps=steps), more),
        rs.correlate(ranks_of(x[::2], steps=evens), reached(y[::2], steps=evens)),
    )


def test_differences_are_between_successive_common_steps() -> None:
    x, y = np.random.default_rng(3).normal(size=(2, 18))
    row = found(x, y)[DIFFERENCES, "pearson"]
    assert row["value"] == pytest.approx(np.corrcoef(later_changes(x), later_changes(y))[0, 1])
    assert row["n"] == 12


def test_condition_numbers_enter_by_the_logarithm_of_their_median() -> None:
    y = np.random.default_rng(10).random(STEPS)
    kappa = np.repeat(10 ** (2 * y + 1), 3) * np.tile([1e-2, 1, 1e9], STEPS)
    metrics = ranks_of(np.zeros(STEPS), layers=3, condition_number=kappa)
    table = rs.correlate(metrics, reached(y), columns=["condition_number"])
    assert table["value"].to_numpy() == pytest.approx(np.ones(4))


def test_a_median_that_is_only_a_bound_or_infinite_is_not_known() -> None:
    status = ["lower-bound"] * 5 + ["inf"] * 3 + ["ok"] * 12
    kappa = np.array([1e6] * 5 + [math.inf] * 3 + [10.0 + i for i in range(12)])
    metrics = ranks_of(np.zeros(20), condition_number=kappa, condition_number_status=status)
    table = rs.correlate(metrics, reached(np.arange(20.0)), columns=["condition_number"])
    levels = table[table["form"] == LEVELS]
    assert set(levels["n"]) == {12}
    assert levels.set_index("method")["value"]["spearman"] == pytest.approx(1)


def test_a_perplexity_correlates_as_its_loss_does() -> None:
    x, y = walks(11)
    evaluation = pd.concat(
        [reached(y), reached(np.exp(y), measure=("novels", "all", "perplexity"))]
    )
    table = rs.correlate(ranks_of(x), evaluation, columns=["per"])
    loss, perplexity = (table[table["metric"] == name] for name in ("loss", "perplexity"))
    columns = ["value", "ci_low", "ci_high"]
    np.testing.assert_allclose(loss[columns], perplexity[columns], atol=1e-9)


def test_a_perplexity_that_overflowed_is_not_known() -> None:
    y = np.append(np.full(3, math.inf), np.arange(1.0, 10))
    table = rs.correlate(
        ranks_of(np.arange(12.0)), reached(y, measure=("t", "all", "perplexity")), columns=["per"]
    )
    assert set(table["n"]) == {9, len(later_changes(np.zeros(9)))}


@pytest.mark.parametrize("n", [1, 3, 4, 11, 12, 13, 23, 24, 25])
def test_points_too_few_for_a_correlation_or_an_interval_have_none(n: int) -> None:
    x, y = np.random.default_rng(12).normal(size=(2, n))
    for (form, _), row in found(x, y).items():
        assert math.isnan(row["value"]) is (row["n"] < FEWEST[form])
        has_interval = form == DIFFERENCES and row["n"] >= FEWEST_FOR_INTERVAL
        assert math.isnan(row["ci_low"]) is not has_interval


def test_runs_without_common_steps_have_a_row_that_says_so() -> None:
    table = rs.correlate(ranks_of([1.0, 2]), reached([1.0, 2], steps=[5, 6]), columns=["per"])
    assert table["value"].isna().all()
    assert set(table["n"]) == {0}


def test_the_loss_perplexity_and_accuracy_of_whole_tasks_are_taken() -> None:
    measures = [
        ("blimp", "all", "accuracy"),
        ("blimp", "all", "ties"),
        ("blimp", "uid:passive_1", "accuracy"),
        ("novels", "all", "bits_per_byte"),
        ("novels", "all", "loss"),
        ("novels", "all", "perplexity"),
        ("novels", "source:a", "loss"),
    ]
    evaluation = pd.concat(reached(np.arange(1.0, 9), measure=measure) for measure in measures)
    taken = rs.correlate(ranks_of(np.arange(8.0)), evaluation)[["task", "group", "metric"]]
    there = set(taken.itertuples(index=False, name=None))
    assert there == {measures[i] for i in (0, 4, 5)}
    asked = rs.correlate(ranks_of(np.arange(8.0)), evaluation, measures=[measures[2]])
    assert set(asked["group"]) == {"uid:passive_1"}


@pytest.mark.parametrize("which", ["metrics", "evaluation", "both"])
def test_empty_tables_give_an_empty_table_with_the_columns(which: str) -> None:
    metrics, evaluation = ranks_of([1.0]), reached([1.0])
    if which != "evaluation":
        metrics = metrics.iloc[:0]
    if which != "metrics":
        evaluation = evaluation.iloc[:0]
    table = rs.correlate(metrics, evaluation)
    assert table.empty
    assert tuple(table.columns) == COLUMNS


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    metrics, evaluation = ranks_of([1.0, 2]), reached([1.0, 2])
    with pytest.raises(RankscopeError, match="the table holds weight"):
        rs.correlate(metrics, evaluation, component="wieght")
    with pytest.raises(RankscopeError, match="unknown metric 'pre'"):
        rs.correlate(metrics, evaluation, columns=["pre"])
    with pytest.raises(RankscopeError, match=r"the evaluation has \('novels', 'all', 'loss'\)"):
        rs.correlate(metrics, evaluation, measures=[("blimp", "all", "accuracy")])
    with pytest.raises(RankscopeError, match="two values"):
        rs.correlate(metrics, pd.concat([evaluation, evaluation]))


def test_only_the_steps_from_a_break_on_enter() -> None:
    x, y = walks(13)
    metrics, evaluation = ranks_of(x), reached(y)
    metrics.attrs["breaks"] = {"a": 10}
    later = rs.correlate(ranks_of(x[10:], steps=range(10, STEPS)), evaluation, columns=["per"])
    pd.testing.assert_frame_equal(rs.correlate(metrics, evaluation, columns=["per"]), later)


def test_the_tables_stay_as_they_are() -> None:
    metrics, evaluation = ranks_of(walks(1)[0]), reached(walks(2)[0])
    copies = metrics.copy(), evaluation.copy()
    rs.correlate(metrics, evaluation)
    pd.testing.assert_frame_equal(metrics, copies[0])
    pd.testing.assert_frame_equal(evaluation, copies[1])


def test_correlating_needs_neither_torch_nor_matplotlib() -> None:
    code = "import sys; from rankscope import correlate; "
    code += "sys.exit(bool({'torch', 'matplotlib'} & {*sys.modules}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
