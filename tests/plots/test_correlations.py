from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

import rankscope as rs
from rankscope import plots
from rankscope.errors import RankscopeError
from rankscope.plots.correlations import NOTES

LOSS = ("novels", "all", "loss")


@pytest.fixture(scope="module")
def correlations(results: Any) -> pd.DataFrame:
    """Correlations as of a longer run: every difference has a value, and an interval about it."""
    found = rs.correlate(results.metrics, results.evaluation)
    is_change = found["form"] == "differences"
    made = np.random.default_rng(0).uniform(-0.8, 0.8, is_change.sum())
    found.loc[is_change, "value"] = made
    found.loc[is_change, "ci_low"], found.loc[is_change, "ci_high"] = made - 0.1, made + 0.1
    return found


def dots(ax: Axes, *, hollow: bool) -> dict[float, float]:
    """Correlation by height of the drawn markers, legend entries aside."""
    points = [line for line in ax.lines if line.get_linestyle() == "None" and len(line.get_xdata())]
    return {
        float(y): float(x)
        for line in points
        if (line.get_markerfacecolor() == "white") is hollow
        for x, y in zip(np.asarray(line.get_xdata()), np.asarray(line.get_ydata()), strict=True)
    }


@pytest.mark.slow
def test_every_role_and_run_has_a_dot_of_either_form(correlations: pd.DataFrame) -> None:
    _, ax = plt.subplots()
    assert plots.correlation(correlations, column="per", measure=LOSS, ax=ax) is ax
    roles = [tick.get_text() for tick in ax.get_yticklabels()]
    assert roles == ["q", "k", "v", "o", "gate", "up", "down"]
    rows = correlations.query("column == 'per' and metric == 'loss' and method == 'spearman'")
    for form, hollow in (("levels", True), ("differences", False)):
        drawn = dots(ax, hollow=hollow)
        for role, of_role in rows[rows["form"] == form].groupby("role"):
            beside = [x for y, x in drawn.items() if round(y) == roles.index(role)]
            assert sorted(beside) == sorted(of_role["value"])


def test_a_dot_stands_on_its_interval(correlations: pd.DataFrame) -> None:
    ax = plots.correlation(correlations, column="per", measure=LOSS)
    drawn = [segment for lines in ax.collections for segment in lines.get_segments()]
    bar_at = {round(low[1], 6): (low[0], high[0]) for low, high in filter(len, drawn)}
    rows = correlations.query("column == 'per' and metric == 'loss' and method == 'spearman'")
    bounds = rows[["ci_low", "ci_high"]].dropna()
    assert {tuple(bar) for bar in bar_at.values()} == set(bounds.itertuples(index=False, name=None))
    assert {round(y, 6) for y in dots(ax, hollow=False)} == {*bar_at}


def test_the_legend_says_what_levels_and_differences_are(correlations: pd.DataFrame) -> None:
    ax = plots.correlation(correlations, column="per", measure=LOSS)
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts[:2] == ["full", "relora"]
    assert {*NOTES.values()} < {*texts}


def test_there_is_a_panel_a_measure_and_a_row_a_rank(correlations: pd.DataFrame) -> None:
    figure = plots.rank_and_performance(correlations)
    assert [ax.get_title() for ax in figure.axes[:2]] == ["blimp: accuracy", "novels: loss"]
    assert len(figure.axes) == 4
    assert [ax.texts[0].get_text() for ax in figure.axes[1::2]] == ["PER", r"$\kappa$"]
    assert figure.get_supxlabel() == r"Spearman's $\rho$"


def test_a_perplexity_without_a_loss_has_its_panel(correlations: pd.DataFrame) -> None:
    rows = correlations[correlations["metric"] != "loss"]
    titles = [ax.get_title() for ax in plots.rank_and_performance(rows).axes[:2]]
    assert titles == ["blimp: accuracy", "novels: perplexity"]


def test_parts_of_a_task_are_named(results: Any) -> None:
    measures = [("blimp", "phenomenon:anaphor_agreement", "accuracy")]
    rows = rs.correlate(results.metrics, results.evaluation, measures=measures)
    (title, _) = [ax.get_title() for ax in plots.rank_and_performance(rows).axes]
    assert title == "blimp: anaphor agreement accuracy"


def test_a_correlation_without_an_interval_is_a_dot_alone(correlations: pd.DataFrame) -> None:
    bare = correlations.assign(ci_low=np.nan, ci_high=np.nan)
    figure = plots.rank_and_performance(bare, method="pearson")
    figure.draw_without_rendering()
    assert figure.get_supxlabel() == "Pearson's $r$"
    assert not any("interval" in text.get_text() for text in figure.legends[0].get_texts())


@pytest.mark.parametrize("width", ["acl", "neurips", 12])
@pytest.mark.slow
def test_the_figure_and_its_legend_fit_any_width(
    correlations: pd.DataFrame, width: str | float
) -> None:
    with plots.paper_style(width):
        figure = plots.rank_and_performance(correlations)
        figure.draw_without_rendering()
        legend = figure.legends[0].get_window_extent()
    assert legend.x0 >= 0
    assert legend.x1 <= figure.bbox.width


def test_where_nothing_is_defined_there_is_no_figure(correlations: pd.DataFrame) -> None:
    for rows in (correlations.iloc[:0], correlations.assign(value=np.nan)):
        with pytest.raises(RankscopeError, match="no correlation is defined"):
            plots.rank_and_performance(rows)
    with pytest.raises(RankscopeError, match="no spearman correlations of 'kappa'"):
        plots.correlation(correlations, column="kappa", measure=LOSS)


def test_replicates_are_at_their_mean_with_their_range(correlations: pd.DataFrame) -> None:
    runs = {"a-0": -0.2, "a-1": 0.6, "b": 0.4}
    one = correlations.query("column == 'per' and metric == 'loss' and role == 'q'")
    one = one[(one["form"] == "differences") & (one["method"] == "spearman")].iloc[:1]
    table = pd.concat([one.assign(run=run, value=value) for run, value in runs.items()])
    ax = plots.correlation(table, column="per", measure=LOSS, group=r"(.)-\d")
    assert [*dots(ax, hollow=False).values()] == pytest.approx([0.2, 0.4])
    (bar,) = [s for lines in ax.collections for s in lines.get_segments() if np.ma.count(s) == 4]
    assert bar[:, 0].tolist() == pytest.approx([-0.2, 0.6])
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "mean and range of 2 runs (b: 1)" in texts
