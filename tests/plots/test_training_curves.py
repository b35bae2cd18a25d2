from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from rankscope import plots
from rankscope.errors import RankscopeError
from rankscope.statistics.logged_series import running_window
from tests.plots.drawn import restart_ticks


def test_loss_shows_validation_and_restarts(results: Any) -> None:
    ax = plots.loss(results.training)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "loss (nats per token)")
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts[:2] == ["full", "relora"]
    assert {"training, mean of 20 steps", "validation", "restart"} <= set(texts)
    assert "training, as logged" in texts
    assert [x for x, _ in restart_ticks(ax)] == list(range(100, 1000, 100))


def test_loss_needs_only_run_step_and_loss(results: Any) -> None:
    plain = results.training[["run", "step", "loss"]]
    texts = [text.get_text() for text in plots.loss(plain).get_legend().get_texts()]
    assert "validation" not in texts
    assert "restart" not in texts


def test_a_run_keeps_its_colour_where_the_other_logged_nothing(results: Any) -> None:
    alone = results.training[results.training["run"] == "relora"]
    handles, labels = plots.loss(alone, runs=["full", "relora"]).get_legend_handles_labels()
    assert handles[labels.index("relora")].get_color() == "#D55E00"


def test_a_running_mean_of_a_constant_is_the_constant() -> None:
    training = pd.DataFrame({"run": "a", "step": range(0, 500, 3), "loss": 2.0})
    for line in plots.loss(training).lines:
        assert set(np.asarray(line.get_ydata(), dtype=float)) <= {2.0}


def test_a_long_training_is_drawn_without_a_warning() -> None:
    steps = np.arange(300_000)
    plots.losses(
        pd.DataFrame({"run": "a", "step": steps, "loss": 3 + np.cos(steps)})
    ).draw_without_rendering()


def test_a_loss_that_is_not_finite_is_a_gap() -> None:
    training = pd.DataFrame({"run": "a", "step": range(9), "loss": [1.0] * 8 + [np.inf]})
    ax = plots.loss(training)
    ax.figure.draw_without_rendering()
    assert np.isfinite(ax.get_ylim()).all()


@pytest.mark.parametrize("training", [pd.DataFrame(), pd.DataFrame({"loss": [np.nan]})])
def test_training_without_a_loss_is_refused(training: pd.DataFrame) -> None:
    with pytest.raises(RankscopeError, match="no loss"):
        plots.loss(training)


@pytest.mark.parametrize(
    ("every", "texts"),
    [
        (5, ["training, mean of 10 steps", "training, as logged"]),
        (50, ["training, as logged"]),
        (7, ["training, mean of 10 steps", "training, as logged"]),
    ],
)
def test_the_legend_says_what_was_averaged(every: int, texts: list[str]) -> None:
    steps = range(0, 400, every)
    ax = plots.loss(pd.DataFrame({"run": "a", "step": steps, "loss": 2.0}))
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", *texts]


def test_a_mean_is_at_least_from_one_logged_value_to_the_next_of_every_run() -> None:
    runs = [
        pd.DataFrame({"run": run, "step": range(0, 400, every), "loss": 2.0})
        for run, every in (("a", 1), ("b", 50))
    ]
    assert running_window(pd.concat(runs)) == 50


def test_the_legend_of_the_figure_is_not_on_its_lines(results: Any) -> None:
    figure = plots.losses(results.training)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    top = figure.axes[0].get_window_extent().y1
    assert legend.get_window_extent().y0 > top - 0.02 * figure.bbox.height  # its own padding


def test_a_line_of_several_runs_is_their_mean() -> None:
    runs = [
        pd.DataFrame({"run": run, "step": [0, 50], "loss": x})
        for run, x in {"a": 1.0, "b": 3.0}.items()
    ]
    ax = plots.loss(pd.concat(runs).assign(method="m"), hue="method")
    (line,) = [line for line in ax.lines if len(line.get_xdata())]
    assert list(line.get_ydata()) == [2, 2]
    assert "mean over 2 runs" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_the_loss_of_a_log_without_tokens_has_no_unit(results: Any) -> None:
    foreign = results.training.assign(run="trainer", tokens=np.nan)
    both = pd.concat([results.training, foreign], ignore_index=True)
    assert plots.loss(both).get_ylabel() == "loss"


def test_replicates_have_a_band_at_the_steps_that_all_of_them_logged() -> None:
    runs = {"a-0": [1.0, 2.0, 6.0], "a-1": [3.0, 5.0], "b": [9.0, 9.0, 9.0]}
    table = pd.concat(
        pd.DataFrame({"run": run, "step": range(0, 50 * len(loss), 50), "loss": loss})
        for run, loss in runs.items()
    )
    ax = plots.loss(table, group=r"(.)-\d")
    first, second = (line for line in ax.lines if len(line.get_xdata()))
    assert (list(first.get_xdata()), list(first.get_ydata())) == ([0, 50], [2, 3.5])
    assert list(second.get_xdata()) == [0, 50, 100]
    (band,) = [part for part in ax.collections if part.get_paths()]
    assert {*map(tuple, band.get_paths()[0].vertices)} == {(0, 1), (0, 3), (50, 2), (50, 5)}
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "min to max over 2 runs (b: 1)" in texts
    assert "left out: 1 points that some run of a group lacks" in texts
