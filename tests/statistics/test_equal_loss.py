"""Runs of which one is faster: at equal loss they are the same."""

import numpy as np
import pandas as pd
import pytest

from rankscope.results.columns import EVALUATION_COLUMNS
from rankscope.results.results import table_of
from rankscope.statistics.differences import Sides, differences
from rankscope.statistics.equal_loss import around, at_steps, common_level, losses_of
from tests.statistics.test_differences import row

STEPS = (0, 10, 20, 30, 40)
SPEEDS = {"a": 1.0, "b": 0.6}
ONE = Sides(("a",), ("b",))


def loss_at(run: str, step: float) -> float:
    return float(4 * np.exp(-SPEEDS[run] * step / 20))


def losses(source: str = "held-out") -> pd.DataFrame:
    rows = [(run, step, loss_at(run, step), source) for run in SPEEDS for step in STEPS]
    return pd.DataFrame(rows, columns=["run", "step", "loss", "source"])


def table(shift: float = 0.0) -> pd.DataFrame:
    """PER is a function of the loss, but for what is added to run b in layers that vary little."""
    return table_of(
        row(run, layer, "q", value, step=step)
        for run in SPEEDS
        for step in STEPS
        for layer in range(4)
        for value in [
            0.2 + 0.1 * loss_at(run, step) + 0.01 * layer
            + (run == "b") * (shift + 0.001 * (-1) ** layer)
        ]
    )  # fmt: skip


def test_runs_that_are_only_slower_differ_at_a_step_and_not_at_a_loss() -> None:
    found = differences(table(), ONE, losses=losses(), columns=["per"])
    roles = found[found["layer"].isna()].set_index(["at", "step_a"])
    assert roles.loc[("step", 40), "differs"]
    at_loss = found[(found["at"] == "loss") & found["layer"].isna()].iloc[0]
    assert not at_loss["differs"]
    assert at_loss["loss"] == pytest.approx(loss_at("b", 40))
    assert (at_loss["step_a"], at_loss["step_b"]) == (pytest.approx(24.3, abs=0.5), 40)
    # Exact in the loss, so interpolated exactly, and the error holds the rest of the interval.
    assert at_loss["difference"] == pytest.approx(0, abs=1e-9)
    assert at_loss["error"] > 0.03


def test_a_difference_at_equal_loss_is_found() -> None:
    found = differences(table(shift=0.3), ONE, losses=losses(), columns=["per"])
    at_loss = found[(found["at"] == "loss") & found["layer"].isna()].iloc[0]
    assert at_loss["differs"]
    assert at_loss["difference"] == pytest.approx(0.3)


def test_changes_between_steps_have_no_place_at_a_loss() -> None:
    found = differences(
        table().assign(component="update", since=0), ONE, losses=losses(), columns=["per"]
    )
    assert set(found["at"]) == {"step"}


def test_a_run_is_between_the_checkpoints_around_a_loss() -> None:
    curve = pd.Series([4.0, 3.0, 2.0], index=[0.0, 10.0, 20.0])
    assert around(curve, 2.5) == (10, 20, 0.5)
    assert around(curve, 3.0) == (10, 10, 1)
    assert around(curve, 4.0) == (0, 0, 1)
    other = pd.Series([3.5, 1.0], index=[0.0, 10.0])
    assert common_level([curve, other]) == 2.0
    assert np.isnan(common_level([curve, other - 2]))  # begins below what the first one reached
    assert np.isnan(common_level([curve, pd.Series(dtype=float)]))


def test_the_best_source_that_all_runs_have_is_taken() -> None:
    rows = [(r, s, "text", "all", "loss", loss_at(r, s), 0, 9, 9) for r in "ab" for s in (0, 40)]
    evaluation = pd.DataFrame(rows, columns=list(EVALUATION_COLUMNS))
    training = losses().assign(validation_loss=lambda x: x["loss"] + 1)
    assert set(losses_of(evaluation, training)["source"]) == {"text"}
    alone = evaluation[evaluation["run"] == "a"]
    assert set(losses_of(alone, training)["source"]) == {"validation"}
    assert set(losses_of(alone, losses())["source"]) == {"training"}
    assert losses_of(evaluation[:0], pd.DataFrame()).empty


def test_losses_of_single_batches_are_averaged_and_others_interpolated(
    rng: np.random.Generator,
) -> None:
    steps = np.arange(0, 101)
    noisy = 5 - 0.02 * steps + rng.normal(size=steps.size)
    logged = pd.DataFrame({"run": "a", "step": steps, "loss": noisy, "source": "training"})
    found = at_steps(logged, "a", {0, 50, 100})
    assert found[50.0] == pytest.approx(noisy[26:76].mean(), abs=0.05)
    smooth = logged.assign(source="validation")[::7]
    assert at_steps(smooth, "a", {10, 500})[10.0] == pytest.approx(
        noisy[7] + (noisy[14] - noisy[7]) * 3 / 7
    )
    assert 500.0 not in at_steps(smooth, "a", {10, 500})
