"""Runs at equal loss are where a naive search of their logs puts them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rankscope.pipeline.curves import Curve
from rankscope.representing.collected import Place, Side
from rankscope.representing.comparison_plans import ComparisonEntry, ComparisonPlans, doubts
from rankscope.representing.loss_pairs import LossPair, loss_pairs

STEPS = range(0, 60, 10)


def side(run: str, step: int, at: str = "block") -> Side:
    curve = Curve(run, f"/{run}", "novel", f"{run}-{at}", {"features": "all", "at": at})
    key, place = f"{run} {step} {at}", Place(0, at)
    return Side(curve, step, Path(key), key, "probe", (place,))


def logged(**curves: list[float]) -> pd.DataFrame:
    rows = [
        {"run": run, "step": step, "loss": loss, "source": "validation"}
        for run, curve in curves.items()
        for step, loss in zip(STEPS, curve, strict=False)
    ]
    return pd.DataFrame(rows)


def found_in(losses: pd.DataFrame, *runs: str) -> tuple[list[LossPair], list[str]]:
    sides = [side(run, step) for run in runs for step in STEPS]
    pairs, skips = loss_pairs(sides, lambda two: losses[losses["run"].isin(two)])
    return pairs, [skip.message for skip in skips]


def naive(one: list[float], other: list[float]) -> tuple[int, int]:
    """Indices: the lowest loss that both reach, and of each the nearer of the last above it."""
    level = min(loss for loss in (*one, *other) if loss >= min(one) and loss >= min(other))

    def nearest(curve: list[float]) -> int:
        later = next(i for i, loss in enumerate(curve) if loss <= level)
        before = max(later - 1, 0)
        return later if level - curve[later] <= abs(curve[before] - level) else before

    return nearest(one), nearest(other)


@pytest.mark.parametrize("seed", range(12))
def test_both_are_at_the_checkpoint_nearest_to_the_lowest_loss_that_both_reached(
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    one, other = (9 + np.append(0, -rng.random(5)).cumsum() * rng.integers(1, 4) for _ in "ab")
    pairs, messages = found_in(logged(a=[*one], b=[*other]), "a", "b")
    assert not messages
    (pair,) = pairs
    expected = naive([*one], [*other])
    assert (pair.side.step, pair.against.step) == tuple(STEPS[i] for i in expected)
    assert pair.losses == (one[expected[0]], other[expected[1]])
    assert (pair.side.curve.run, pair.against.curve.run) == ("a", "b")


def test_without_a_common_loss_a_line_says_so_once_per_two_runs() -> None:
    losses = logged(a=[3.0, 2.0], b=[1.0, 0.5])  # b began below
    sides = [side(run, step, at) for run in "abc" for step in STEPS for at in ("block", "mlp")]
    pairs, skips = loss_pairs(sides, lambda two: losses[losses["run"].isin(two)])
    assert pairs == []
    assert [skip.message.partition(":")[0] for skip in skips] == [
        f"is not compared with {run} at equal loss" for run in ("b", "c", "c")
    ]
    assert all(len(str(skip)) < 500 for skip in skips)


def test_plans_compare_the_pairs_and_their_keys_depend_on_the_losses() -> None:
    falls = [5.0, 4, 3, 2, 1, 1]
    losses = logged(a=falls, b=[5.0, 5, 5, 4, 3, 3])
    pairs, _ = found_in(losses, "a", "b")
    sides = [pairs[0].side, pairs[0].against]
    tasks = [task for plan in ComparisonPlans(sides, ["loss"], pairs) for task in plan.tasks]
    (task,) = tasks
    assert (task.side.step, task.against.step, task.losses) == (20, 40, (3.0, 3.0, "validation"))
    other = [replace(pairs[0], losses=(3.0, 3.5))]
    (changed,) = (task for plan in ComparisonPlans(sides, ["loss"], other) for task in plan.tasks)
    assert changed.key != task.key


def test_similarities_without_numbers_have_one_line_for_each_reason() -> None:
    rows = [
        {"layer": 0, "at": "block", "status": status}
        for status in ("ok", "too-few-blocks", "unresolved", "too-few-blocks", "constant")
    ]
    lines = doubts([(side("a", 10), ComparisonEntry("key", "last", tuple(rows)))])
    assert [line.reason for line in lines] == ["too-few-blocks", "unresolved", "constant"]
    assert lines[0].message.startswith(
        "the block of layer 0 at step 10 and 1 more places, compared: fewer than five documents"
    )
