from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from rankscope import plots
from rankscope.errors import RankscopeError
from tests.plots.drawn import legend_texts, restart_ticks


def log_of(run: str, *, peak: float = 1.0, every: int = 10) -> pd.DataFrame:
    """A warm-up, and another after the restart at step 40."""
    steps = list(range(0, 80, every))
    rates = [peak * min(1.0, (step % 40) / 20) for step in steps]
    logged = pd.DataFrame({"run": run, "step": steps, "learning_rate": rates, "loss": 2.0})
    event = pd.DataFrame({"run": [run], "step": [40], "event": ["restart"]})
    return pd.concat([logged, event], ignore_index=True)


def test_the_rate_is_drawn_as_it_was_logged_with_its_restarts() -> None:
    ax = plots.learning_rate(log_of("a"))
    (line,) = [line for line in ax.lines if len(line.get_xdata())]
    assert list(line.get_xdata()) == [0, 10, 20, 30, 40, 50, 60, 70]
    assert list(line.get_ydata()) == [0, 0.5, 1, 1, 0, 0.5, 1, 1]
    assert [step for step, _ in restart_ticks(ax)] == [40]
    assert legend_texts(ax) == ["a", "logged every 10 steps", "restart"]


def test_a_line_of_several_runs_is_their_mean_with_their_range() -> None:
    both = pd.concat([log_of("a-1"), log_of("a-2", peak=3.0, every=20)])
    ax = plots.learning_rate(both, group="(a)-.*")
    (line,) = [line for line in ax.lines if len(line.get_xdata())]
    assert dict(zip(line.get_xdata(), line.get_ydata(), strict=True)) == {0: 0, 20: 2, 40: 0, 60: 2}
    texts = legend_texts(ax)
    assert {"mean over 2 runs", "min to max over 2 runs", "logged every 10–20 steps"} < {*texts}


def test_the_figure_has_the_loss_above_if_there_is_one() -> None:
    assert [ax.get_ylabel() for ax in plots.learning_rates(log_of("a")).axes] == [
        "loss", "learning rate"
    ]  # fmt: skip
    alone = plots.learning_rates(log_of("a").drop(columns="loss"))
    assert [ax.get_xlabel() for ax in alone.axes] == ["step"]


def test_recorded_merges_are_restarts_where_a_log_has_no_events() -> None:
    foreign = log_of("a").dropna(subset=["loss"]).drop(columns="event")
    foreign.attrs["restarts"] = {"a": [30, 50]}
    ax = plots.learning_rate(foreign)
    assert [step for step, _ in restart_ticks(ax)] == [30, 50]


@pytest.mark.parametrize("training", [pd.DataFrame(), pd.DataFrame({"run": ["a"], "step": [1]})])
def test_a_log_without_rates_is_refused(training: pd.DataFrame) -> None:
    with pytest.raises(RankscopeError, match="no learning rate was logged"):
        plots.learning_rate(training, ax=plt.figure().add_subplot())
