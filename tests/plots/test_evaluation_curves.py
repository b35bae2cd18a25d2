from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection

import rankscope as rs
from rankscope import plots
from rankscope.errors import RankscopeError
from rankscope.statistics.performance_measures import main_measures, phenomena


@pytest.fixture
def evaluation(results: Any) -> pd.DataFrame:
    return results.evaluation.copy()


def legend_texts(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def curve(ax: Axes, color: str) -> np.ndarray:
    """Points of the one line of a colour, legend entries aside."""
    (line,) = [
        line
        for line in ax.lines
        if line.get_color() == color and line.get_linestyle() != "None" and len(line.get_xdata())
    ]
    return np.column_stack([np.asarray(line.get_xdata()), np.asarray(line.get_ydata())])


def test_a_score_is_drawn_on_the_axes_given_with_its_interval(evaluation: pd.DataFrame) -> None:
    _, ax = plt.subplots()
    assert plots.score(evaluation, "loss", task="novels", ax=ax) is ax
    rows = evaluation.query("run == 'full' and task == 'novels' and metric == 'loss'")
    np.testing.assert_array_equal(curve(ax, "#0072B2"), rows[["step", "value"]].to_numpy(float))
    bands = [band for band in ax.collections if isinstance(band, PolyCollection)]
    ends = [band.get_paths()[0].vertices[:, 1] for band in bands if band.get_paths()]
    assert (ends[0].min(), ends[0].max()) == (rows["ci_low"].min(), rows["ci_high"].max())
    assert legend_texts(ax) == ["full", "relora", "nominal 95 % interval (under 50 documents)"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "loss (nats per token)")


def test_a_perplexity_is_on_a_log_axis(evaluation: pd.DataFrame) -> None:
    ax = plots.score(evaluation, "perplexity", task="novels")
    assert (ax.get_yscale(), ax.get_ylabel()) == ("log", "perplexity per token")


def test_an_accuracy_has_the_line_of_chance(evaluation: pd.DataFrame) -> None:
    ax = plots.score(evaluation, "accuracy", task="blimp", group="phenomenon:binding")
    (chance,) = [x for x in ax.lines if x.get_linestyle() == ":" and len(x.get_xdata())]
    assert set(chance.get_ydata()) == {0.5}
    assert "chance" in legend_texts(ax)


def test_what_has_no_interval_has_no_band(evaluation: pd.DataFrame) -> None:
    ax = plots.score(evaluation, "ties", task="blimp")
    assert legend_texts(ax) == ["full", "relora"]


def test_a_score_that_is_not_finite_stands_at_an_end(evaluation: pd.DataFrame) -> None:
    rows = evaluation.query("task == 'novels' and metric == 'perplexity'").copy()
    ends = ["value", "ci_low", "ci_high"]
    rows.loc[rows["step"] == 0, ends] = np.inf
    rows.loc[rows["step"] == 300, ends] = np.nan
    ax = plots.score(rows, "perplexity", task="novels")
    ax.figure.draw_without_rendering()
    assert {"infinite (at the top)", "undefined (at the bottom)"} <= set(legend_texts(ax))
    assert np.isfinite(ax.get_ylim()).all()


def test_a_run_keeps_its_colour_where_another_was_not_evaluated(evaluation: pd.DataFrame) -> None:
    alone = evaluation[evaluation["run"] == "relora"]
    ax = plots.score(alone, "loss", task="novels", runs=["full", "relora"])
    handles, labels = ax.get_legend_handles_labels()
    assert handles[labels.index("relora")].get_color() == "#D55E00"


def test_every_task_has_a_panel_of_its_main_measure(evaluation: pd.DataFrame) -> None:
    figure = plots.performance(evaluation)
    assert [ax.get_title() for ax in figure.axes] == ["novels", "blimp"]
    assert [ax.get_ylabel() for ax in figure.axes] == ["perplexity per token", "accuracy"]
    assert [ax.get_yscale() for ax in figure.axes] == ["log", "linear"]
    assert figure.get_supxlabel() == "step"
    assert len(figure.legends) == 1


def test_a_task_without_perplexity_shows_its_loss(evaluation: pd.DataFrame) -> None:
    rows = evaluation[~evaluation["metric"].isin(["perplexity", "accuracy"])]
    assert main_measures(rows) == [("novels", "all", "loss")]


def test_every_phenomenon_has_a_panel(evaluation: pd.DataFrame) -> None:
    assert phenomena(evaluation) == ["phenomenon:anaphor_agreement", "phenomenon:binding"]
    figure = plots.blimp_phenomena(evaluation)
    assert [ax.get_title() for ax in figure.axes] == ["anaphor agreement", "binding"]
    assert (figure.get_supxlabel(), figure.get_supylabel()) == ("step", "accuracy")


def test_the_order_of_rows_does_not_matter(evaluation: pd.DataFrame) -> None:
    there = plots.score(evaluation.sample(frac=1, random_state=0), "loss", task="novels")
    here = plots.score(evaluation, "loss", task="novels", ax=plt.figure().add_subplot())
    np.testing.assert_array_equal(curve(here, "#D55E00"), curve(there, "#D55E00"))


def test_what_was_not_measured_is_refused(evaluation: pd.DataFrame) -> None:
    with pytest.raises(RankscopeError, match="no 'loss' of 'all' of 'blimp'"):
        plots.score(evaluation, "loss", task="blimp")
    with pytest.raises(RankscopeError, match="no perplexity, loss or accuracy"):
        plots.performance(evaluation.iloc[:0])
    with pytest.raises(RankscopeError, match="by phenomenon"):
        plots.blimp_phenomena(evaluation[evaluation["group"] == "all"])


def test_intervals_of_few_documents_are_called_nominal(evaluation: pd.DataFrame) -> None:
    for metric, task, n, text in (
        ("perplexity", "novels", 49, "nominal 95 % interval (under 50 documents)"),
        ("perplexity", "novels", 50, "95 % interval"),
        ("accuracy", "blimp", 49, "95 % interval"),
    ):
        ax = plt.figure().add_subplot()
        plots.score(evaluation.assign(n=n), metric, task=task, ax=ax)
        assert text in legend_texts(ax)


def test_a_score_of_several_runs_is_their_mean_and_their_range(evaluation: pd.DataFrame) -> None:
    ax = plots.score(evaluation.assign(method="m"), "loss", task="novels", hue="method")
    rows = evaluation.query("task == 'novels' and metric == 'loss'")
    mean = rows.groupby("step")["value"].mean()
    np.testing.assert_allclose(curve(ax, "#0072B2")[:, 1], mean)
    assert legend_texts(ax) == ["m", "mean over 2 runs", "min to max over 2 runs"]


def test_a_score_is_not_joined_across_a_break(evaluation: pd.DataFrame) -> None:
    evaluation.attrs["breaks"] = {"full": 500}
    ax = plots.score(evaluation, "loss", task="novels")
    lines = [x for x in ax.lines if x.get_color() == "#0072B2" and x.get_linestyle() != "None"]
    ends = [(min(x.get_xdata()), max(x.get_xdata())) for x in lines if len(x.get_xdata())]
    assert ends == [(0, 400), (500, 900)]


def test_a_perplexity_of_several_runs_is_that_of_their_mean_loss(evaluation: pd.DataFrame) -> None:
    _, (left, right) = plt.subplots(1, 2)
    rows = evaluation.assign(method="m")
    for metric, ax in (("loss", left), ("perplexity", right)):
        plots.score(rows, metric, task="novels", hue="method", ax=ax)
    np.testing.assert_allclose(curve(right, "#0072B2")[:, 1], np.exp(curve(left, "#0072B2")[:, 1]))
    assert "geometric mean over 2 runs" in legend_texts(right)


def test_one_run_beside_replicates_has_no_interval_of_another_kind(
    evaluation: pd.DataFrame,
) -> None:
    twin = evaluation[evaluation["run"] == "full"].assign(run="full-2")
    rows = pd.concat([evaluation, twin], ignore_index=True)
    table = rs.grouped(rows, "full|relora")
    ax = plots.score(table, "loss", task="novels", hue="run_group")
    assert not [band for band in ax.collections if band.get_paths()]
