"""Correlations over runs that were planted: between groups, within them, and by chance."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rankscope.errors import RankscopeWarning, WrongSettingError
from rankscope.results.results import table_of
from rankscope.statistics.associations import (
    RANK_METHODS,
    RankMethod,
    permutation_p,
    rank_correlation,
    rank_interval,
)
from rankscope.statistics.run_correlation import COLUMNS, correlate_runs, reversals
from tests.statistics.test_differences import row

GROUP = r"(.*)-"


def evaluation_of(losses: Mapping[str, float], *, step: int = 10) -> pd.DataFrame:
    return pd.DataFrame({"run": list(losses), "value": list(losses.values()), "step": step}).assign(
        task="novels", group="all", metric="loss"
    )


def study(
    ranks: Mapping[str, float], losses: Mapping[str, float], **settings: object
) -> pd.DataFrame:
    """Correlations over runs of one matrix each, of known PER and loss."""
    metrics = table_of(row(run, 0, "q", value) for run, value in ranks.items())
    settings = {"columns": ["per"]} | settings
    return correlate_runs(metrics, evaluation_of(losses), **settings)  # type: ignore[arg-type]


def of(found: pd.DataFrame, scope: str, method: str = "spearman") -> pd.Series:
    (one,) = found[(found["scope"] == scope) & (found["method"] == method)].to_dict("records")
    return pd.Series(one)


def arms(
    rng: np.random.Generator, *, between: float, within: float, groups: int = 9
) -> tuple[dict[str, float], dict[str, float]]:
    """Three seeds of each of several methods; what goes with rank between and within them."""
    ranks, losses = {}, {}
    for arm in range(groups):
        for seed in range(3):
            own = rng.normal()
            ranks[f"arm{arm}-{seed}"] = 0.5 + 0.03 * arm + 0.002 * own
            losses[f"arm{arm}-{seed}"] = 3 + between * arm + within * own + 0.001 * rng.normal()
    return ranks, losses


def test_runs_are_the_points_and_both_methods_are_those_of_scipy(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(2, 12))
    runs = [f"r{i}" for i in range(12)]
    found = study(dict(zip(runs, x, strict=True)), dict(zip(runs, y, strict=True)))
    assert found.columns.tolist() == list(COLUMNS)
    for method, truth in (("spearman", stats.spearmanr(x, y)), ("kendall", stats.kendalltau(x, y))):
        one = of(found, "all", method)
        assert one["value"] == pytest.approx(truth.statistic)
        assert one["p"] == pytest.approx(truth.pvalue, abs=0.04)
        assert one["ci_low"] < one["value"] < one["ci_high"]
        assert (one["n"], one["groups"], one["step"]) == (12, 0, 10)


def test_simpsons_paradox_is_found_and_all_runs_together_say_nothing(
    rng: np.random.Generator,
) -> None:
    """Methods of higher rank are worse, and seeds of higher rank within each are better."""
    found = study(*arms(rng, between=0.2, within=-0.05), group=GROUP)
    between, within, every = (of(found, scope) for scope in ("between", "within", "all"))
    assert between["value"] > 0.9 and between["ci_low"] > 0 and between["p"] < 0.01
    assert within["value"] < -0.9 and within["ci_high"] < 0 and within["p"] < 0.01
    assert every["value"] > 0.9 and math.isnan(every["ci_low"]) and math.isnan(every["p"])
    assert (between["n"], within["n"], every["n"]) == (9, 27, 27)
    assert set(reversals(found)["method"]) == set(RANK_METHODS)
    same = study(*arms(rng, between=-0.2, within=-0.05), group=GROUP)
    assert reversals(same).empty
    unsure = study(*arms(rng, between=0.2, within=0.0), group=GROUP)
    assert reversals(unsure).empty


def test_within_groups_is_the_correlation_of_deviations_from_their_means(
    rng: np.random.Generator,
) -> None:
    ranks, losses = arms(rng, between=0.0, within=-0.001)
    ranks["alone-0"], losses["alone-0"] = 0.9, 1.0  # a group of one run does not count
    found = of(study(ranks, losses, group=GROUP), "within")
    table = pd.DataFrame({"x": ranks, "y": losses}).drop("alone-0")
    apart = table - table.groupby([run[:4] for run in table.index]).transform("mean")
    truth = stats.spearmanr(apart["x"], apart["y"])
    assert found["value"] == pytest.approx(truth.statistic)
    assert (found["n"], found["groups"]) == (27, 9)
    assert (found["ci_low"], found["ci_high"]) == rank_interval(found["value"], "spearman", 19)


def test_the_step_is_the_last_that_all_runs_have_or_the_one_asked_for() -> None:
    runs = [f"r{i}" for i in range(5)]
    metrics = table_of(
        row(run, 0, "q", 0.1 * i * (1 if step == 10 else -1), step=step)
        for i, run in enumerate(runs)
        for step in (5, 10, 20)
        if (run, step) != ("r4", 20)
    )
    losses = {run: float(i) for i, run in enumerate(runs)}
    both = pd.concat([evaluation_of(losses, step=step) for step in (5, 10, 20, 30)])
    found = correlate_runs(metrics, both, columns=["per"])
    assert set(found["step"]) == {10}
    assert found["value"].tolist() == pytest.approx([1.0, 1.0])
    with pytest.warns(RankscopeWarning, match="at step 20: r4"):
        late = correlate_runs(metrics, both, columns=["per"], step=20)
    assert late["value"].tolist() == pytest.approx([-1.0, -1.0])
    assert set(late["n"]) == {4}
    with pytest.raises(WrongSettingError, match=r"at which some have: 5, 10, 20$"):
        correlate_runs(metrics, both, columns=["per"], step=30)
    with pytest.raises(WrongSettingError, match="known: evaluate at the steps"):
        correlate_runs(metrics, both[both["step"] == 30], columns=["per"])
    assert correlate_runs(metrics, both[:0]).empty


def test_a_perplexity_is_left_out_beside_its_loss() -> None:
    runs = {f"r{i}": 0.1 + 0.1 * i for i in range(4)}
    metrics = table_of(row(run, 0, "q", value) for run, value in runs.items())
    losses = evaluation_of(runs)
    both = pd.concat([losses, losses.assign(metric="perplexity")])
    assert set(correlate_runs(metrics, both, columns=["per"])["metric"]) == {"loss"}
    alone = correlate_runs(metrics, losses.assign(metric="perplexity"), columns=["per"])
    assert set(alone["metric"]) == {"perplexity"}


@pytest.mark.parametrize("n", [8, 30])
@pytest.mark.parametrize("truth", [0.0, 0.8])
@pytest.mark.parametrize("method", RANK_METHODS)
def test_an_interval_holds_the_truth_as_often_as_stated(
    n: int, truth: float, method: RankMethod
) -> None:
    """Of normal pairs of known correlation, of which both rank correlations are known."""
    rng, trials = np.random.default_rng(n), 400
    x = rng.normal(size=(trials, n))
    y = truth * x + math.sqrt(1 - truth**2) * rng.normal(size=(trials, n))
    wanted = {
        "spearman": 6 / math.pi * math.asin(truth / 2),
        "kendall": 2 / math.pi * math.asin(truth),
    }
    held = 0
    for one, other in zip(x, y, strict=True):
        low, high = rank_interval(rank_correlation(one, other, method), method, n)
        held += low <= wanted[method] <= high
    assert held / trials > 0.93 - 2.5 * math.sqrt(0.05 * 0.95 / trials)


def test_there_is_no_interval_where_little_is_known() -> None:
    assert all(map(math.isnan, rank_interval(0.3, "spearman", 7)))
    assert all(map(math.isnan, rank_interval(math.nan, "spearman", 20)))
    low, high = rank_interval(1.0, "kendall", 8)
    assert 0.5 < low < 1 and high == 1
    assert math.isnan(rank_correlation(np.arange(3.0), np.arange(3.0), "spearman"))
    assert math.isnan(rank_correlation(np.full(9, 0.3), np.arange(9.0), "kendall"))


@pytest.mark.parametrize("method", RANK_METHODS)
def test_p_is_the_share_of_all_orders_within_blocks(method: RankMethod) -> None:
    """Of four pairs in order, 2 of 24 orders are as far from 0; of two blocks of two, fewer."""
    x = np.arange(4.0)
    whole = permutation_p(x, x, method, blocks=np.zeros(4, dtype=np.int_))
    assert whole == pytest.approx(2 / 24, abs=0.02)
    apart = np.array([-1.0, 1.0, -1.0, 1.0])
    blocks = np.array([0, 0, 1, 1])
    # ρ of ±1 pairs is 1, 0, 0, −1 in the four orders.
    assert permutation_p(apart, apart, method, blocks=blocks) == pytest.approx(2 / 4, abs=0.04)
    # Exchanged within blocks alone, what differs between them stays: all four are far from 0.
    y = np.array([0.0, 1.0, 10.0, 11.0])
    assert permutation_p(y, y, method, blocks=blocks) == pytest.approx(1 / 4, abs=0.04)
