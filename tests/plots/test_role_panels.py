from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope import plots


def panels(figure: Figure) -> list[Axes]:
    return [ax for ax in figure.axes if ax.get_title()]


def legend_texts(figure: Figure) -> list[str]:
    legends = [*figure.legends, *(ax.get_legend() for ax in figure.axes)]
    return [text.get_text() for legend in legends if legend for text in legend.get_texts()]


def test_per_has_a_panel_for_every_role_and_one_legend(table: pd.DataFrame) -> None:
    figure = plots.per(table)
    roles = [ax.get_title().split()[0] for ax in panels(figure)]
    assert roles == ["q", "k", "v", "o", "gate", "up", "down"]
    assert panels(figure)[1].get_title() == "k  32×64"
    texts = legend_texts(figure)
    assert texts[:2] == ["full", "relora"]
    assert "Gaussian matrix" in texts
    assert len(texts) == len(set(texts))
    assert (figure.get_supxlabel(), figure.get_supylabel()[:3]) == ("step", "PER")


@pytest.mark.slow
def test_per_draws_the_gaussian_baseline_of_each_shape(table: pd.DataFrame) -> None:
    for ax, square in zip(panels(plots.per(table)), [True, False, False, True], strict=False):
        dotted = [
            line for line in ax.lines if line.get_linestyle() == ":" and len(line.get_xdata())
        ]
        (height,) = {float(np.asarray(line.get_ydata())[0]) for line in dotted}
        assert (height < 0.82) is square


@pytest.mark.slow
def test_updates_show_the_rank_that_their_windows_allow(table: pd.DataFrame) -> None:
    """Over a whole cycle r, between two states of live adapters up to 2r, else nothing known."""
    cycle, live = (
        "adapter rank / min(m, n), whole cycles",
        "largest rank of an adapter change / min(m, n)",
    )
    relora = table[table["run"] == "relora"]
    updates = relora["component"].eq("update")
    doubled = relora["max_rank"].mask(updates, 2 * relora["max_rank"])
    for window, ranks, limit, factor in (
        ("cycle", relora[["rows", "cols"]].min(axis=1), cycle, 1),
        ("within", doubled, live, 2),
        ("", doubled, live, 2),
        ("across", doubled, None, 0),
    ):
        figure = plots.per(
            relora.assign(window=window, max_rank=relora["max_rank"].mask(updates, ranks)), "update"
        )
        texts = legend_texts(figure)
        assert [label for label in (cycle, live) if label in texts] == ([limit] if limit else [])
        if limit:
            adapter = relora[relora["component"].eq("adapter") & relora["role"].eq("q")].iloc[0]
            height = factor * adapter["max_rank"] / min(adapter["rows"], adapter["cols"])
            (ax,) = [ax for ax in panels(figure) if ax.get_title().startswith("q ")]
            drawn = {float(line.get_ydata()[0]) for line in ax.lines if len(line.get_ydata())}
            assert any(math.isclose(height, drawn_at) for drawn_at in drawn)
    assert cycle not in legend_texts(plots.per(table))
    full = table[table["run"] == "full"]
    assert not {cycle, live} & set(legend_texts(plots.per(full, "update")))


@pytest.mark.slow
def test_panels_of_condition_numbers_say_at_which_rank_they_are(table: pd.DataFrame) -> None:
    one = table[table["run"].eq("relora") & table["component"].eq("adapter")]
    for ranks, told in (
        ([4, 4], ", r = 4"),
        ([3, 4], ", r = 3–4"),
    ):
        rows = one.assign(numerical_rank=[ranks[i % 2] for i in range(len(one))])
        assert all(
            ax.get_title().endswith(told)
            for ax in panels(plots.condition_number(rows, "adapter"))
            if ax.get_title()
        )
    both = pd.concat([one.assign(numerical_rank=4), one.assign(run="b", numerical_rank=8)])
    titles = [ax.get_title() for ax in panels(plots.condition_number(both, "adapter"))]
    assert all(title.endswith(", r = 4–8") for title in titles if title)
    texts = legend_texts(plots.condition_number(both, "adapter"))
    assert "r differs by run: heights are not comparable" in texts
    weights = plots.condition_number(table)
    assert not any("r = " in ax.get_title() for ax in panels(weights))


@pytest.mark.slow
def test_kappa_of_updates_is_over_the_values_they_can_have(table: pd.DataFrame) -> None:
    assert plots.condition_number(table).get_supylabel() == r"$\kappa = \sigma_1/\sigma_q$"
    assert r"\sigma_r" in plots.condition_number(table, "update").get_supylabel()
    assert r"{90}" in plots.condition_number(table, column="condition_number_90").get_supylabel()


@pytest.mark.parametrize("width", ["acl", "neurips", 2, 12])
@pytest.mark.slow
def test_a_figure_and_its_legend_fit_any_width(table: pd.DataFrame, width: str | float) -> None:
    with plots.paper_style(width):
        figure = plots.per(table[table["role"].isin(["q", "down"])])
        figure.draw_without_rendering()
    for box in (figure.get_tightbbox(), panels(figure)[0].get_tightbbox()):
        assert box.width > 0
    assert figure.get_tightbbox().x1 <= figure.get_figwidth() + 0.05


@pytest.mark.parametrize("width", ["acl", "acl-text"])
def test_the_label_of_a_single_panel_is_no_longer_than_the_figure(
    table: pd.DataFrame, width: str
) -> None:
    rows = table[table["component"].eq("weight") & table["role"].eq("o")]
    with plots.paper_style(width):
        figure = plots.per(rows.assign(component="ov"), "ov")
        figure.draw_without_rendering()
    (label,) = [text for text in figure.texts if text.get_text().startswith("PER")]
    box, axes = label.get_window_extent(), panels(figure)[0].get_window_extent()
    slack = 0.1 * axes.height
    assert axes.y0 - slack <= box.y0 and box.y1 <= axes.y1 + slack


def test_a_figure_of_one_role_has_one_panel(table: pd.DataFrame) -> None:
    figure = plots.per(table[table["role"] == "down"])
    assert len(figure.axes) == 1
    assert "relora" in legend_texts(figure)


@pytest.mark.slow
def test_long_names_of_runs_leave_the_panels_their_size(table: pd.DataFrame) -> None:
    long = table.assign(run=table["run"] + "-with-4-layers-and-seed-12345")
    widths, heights = [], []
    for figure in (plots.per(table), plots.per(long)):
        figure.draw_without_rendering()
        box = panels(figure)[0].get_window_extent()
        widths.append(box.width)
        heights.append(box.height)
    assert widths[1] == pytest.approx(widths[0], rel=0.1)
    assert heights[1] == pytest.approx(heights[0], rel=0.2)


@pytest.mark.slow
def test_a_run_may_be_called_anything(results: Any) -> None:
    name = r"$\frac{x$ _^%"
    table = results.metrics.assign(run=results.metrics["run"].replace("full", name))
    training = results.training.assign(run=results.training["run"].replace("full", name))
    for figure in (plots.per(table), plots.heatmaps(table), plots.losses(training)):
        figure.draw_without_rendering()


@pytest.mark.slow
def test_lines_can_be_groups_of_runs(table: pd.DataFrame) -> None:
    copies = [table.assign(run=table["run"] + f"-seed{seed}") for seed in (1, 2)]
    table = pd.concat(copies, ignore_index=True)
    table["method"] = table["run"].str.replace(r"-seed\d+$", "", regex=True)
    texts = legend_texts(plots.per(table, "update", hue="method"))
    assert texts[:2] == ["full", "relora"]
    assert "mean over layers, then over 2 runs" in texts
    assert legend_texts(plots.condition_number(table, hue="method"))[:2] == ["full", "relora"]


def test_a_tail_is_drawn_beside_that_of_a_gaussian_matrix_of_its_shape(table: pd.DataFrame) -> None:
    figure = plots.tail_index(table)
    assert figure.get_supylabel() == "tail index (Hill)"
    for ax in figure.axes[:2]:
        role = ax.get_title().split()[0]
        rows = table.query("component == 'weight'")
        (expected,) = rows.loc[rows["role"] == role, "tail_index_gaussian"].unique()
        dotted = [
            line for line in ax.lines if line.get_linestyle() == ":" and len(line.get_xdata())
        ]
        assert [line.get_ydata()[0] for line in dotted] == [pytest.approx(expected, abs=1e-6)]
    assert "Gaussian matrix" in legend_texts(figure)


def test_outliers_say_how_many_gaussian_matrices_have_one(table: pd.DataFrame) -> None:
    texts = legend_texts(plots.outliers(table))
    assert "Gaussian matrix (one in a hundred has one)" in texts
