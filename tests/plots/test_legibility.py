"""What a reader has to be able to read: legends, ticks, titles and maps where they come close."""

from __future__ import annotations

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope import plots
from rankscope.plots.grid import LINE_HEIGHT, new_figure, shared_legend
from rankscope.plots.panel import Panel, entries
from rankscope.plots.style import series_styles
from rankscope.statistics.row_choice import span_text
from tests.plots.comparisons import subspaces_of_two_runs
from tests.plots.drawn import legend_texts
from tests.plots.made_features import representations, similarities


def two_panels() -> tuple[Panel, Panel]:
    _, axes = plt.subplots(1, 2)
    styles = series_styles(["9", "10", "11"])
    return Panel(axes[0], styles), Panel(axes[1], styles)


def test_a_legend_names_series_in_order_wherever_the_first_of_them_is() -> None:
    left, right = two_panels()
    left.series("11")
    right.series("9")
    right.series("10")
    assert entries([left.ax, right.ax])[1] == ["9", "10", "11"]


def test_of_two_explanations_that_look_alike_a_legend_has_the_longer() -> None:
    left, right = two_panels()
    for panel, over in ((left, "layers"), (right, "layers and experts")):
        panel.line(f"mean over {over}")
        panel.band(f"min to max over {over}")
    right.mark("lower bound only")
    texts = ["mean over layers and experts", "min to max over layers and experts"]
    assert entries([left.ax, right.ax])[1] == [*texts, "lower bound only"]


@pytest.mark.parametrize("width", ["acl", "acl-text"])
def test_a_legend_has_as_many_columns_as_fit(width: str) -> None:
    names = [
        "full",
        "published",
        "relora",
        "least to greatest of three runs",
        "a",
        "b",
    ]
    with plots.paper_style(width), plots.style.paper_look():
        figure, [[ax]] = new_figure(1, 1, size=(plots.WIDTHS[width], 2))
        for name in names:
            ax.plot([], label=name)
        shared_legend(figure, [ax], hole=None)
        figure.draw_without_rendering()
    (legend,) = figure.legends
    assert vars(legend)["_ncols"] > 1
    assert legend.get_window_extent().width < figure.bbox.width


def ticks_within(ax: Axes) -> list[float]:
    low, high = ax.get_xlim()
    return [float(tick) for tick in ax.get_xticks() if low <= tick <= high]


def test_an_axis_of_one_step_has_one_tick(table: pd.DataFrame) -> None:
    one = plots.metric(table[table["step"] == 500], "per", ax=plt.figure().add_subplot())
    assert ticks_within(one) == [500]
    assert len(ticks_within(plots.metric(table, "per", ax=plt.figure().add_subplot()))) > 2


def test_profiles_of_one_step_name_it_in_place_of_its_colour(table: pd.DataFrame) -> None:
    weights = table.query("component == 'weight' and role == 'q' and step == 500")
    figure = plots.depth_profiles(weights)
    assert figure.axes[0].get_title() == "PER at step 500"
    assert "<colorbar>" not in [ax.get_label() for ax in figure.axes]


def test_nothing_is_added_to_the_ticks_of_an_axis_above_it() -> None:
    figure = plots.features(representations(), "alpha_req")
    figure.draw_without_rendering()
    assert {ax.yaxis.get_offset_text().get_text() for ax in figure.axes} == {""}


def test_cells_that_a_shorter_run_lacks_are_explained(table: pd.DataFrame) -> None:
    q = table.query("role == 'q' and component == 'weight'")
    assert "hatched: nothing measured" not in legend_texts(plots.heatmaps(q))
    shorter = q[(q["run"] == "full") | (q["step"] < 500)]
    assert "hatched: nothing measured" in legend_texts(plots.heatmaps(shorter))


def between(figure: Figure) -> float:
    """Inches between the first two panels, drawn where their aspect puts them."""
    figure.draw_without_rendering()
    left, right = (ax.get_window_extent() for ax in figure.axes[:2])
    return float(right.x0 - left.x1) / figure.dpi


def test_two_matrices_are_side_by_side_without_a_gap() -> None:
    figure = plots.layer_similarities(similarities(), steps=[100])
    assert 0 < between(figure) < 0.3
    assert [ax.get_ylabel() for ax in figure.axes[:2]] == ["layer", ""]


def test_lines_of_a_title_are_as_close_as_the_layout_takes_them_to_be(
    table: pd.DataFrame,
) -> None:
    q = table.query("role == 'q' and component == 'weight'")
    with plots.paper_style("acl"):
        figure = plots.heatmaps(q.assign(run=q["run"] + "-and-a-longer-seed"))
    figure.draw_without_rendering()
    title = figure.axes[0].title
    lines = 1 + title.get_text().count("\n")
    assert lines > 1
    assert title.get_window_extent().height / figure.dpi < LINE_HEIGHT * lines


def test_colours_span_the_cells_and_not_single_matrices(table: pd.DataFrame) -> None:
    q = table.query("role == 'q' and component == 'weight'")
    experts = pd.concat(
        q.assign(expert=number, per=q["per"] + shift) for number, shift in enumerate((-0.3, 0.3))
    )
    (mesh,) = plots.heatmaps(experts).axes[0].collections[:1]
    assert mesh.get_clim() == pytest.approx((q["per"].min(), q["per"].max()))


def test_the_axis_of_one_compared_merge_has_its_number() -> None:
    table = subspaces_of_two_runs().query("component != 'merge' or step == 200")
    ax = plots.merge_overlap(table, role="q", ax=plt.figure().add_subplot())
    assert ticks_within(ax) == [2]


@pytest.mark.parametrize(("numbers", "text"), [([4, 4], "4"), ([96, 3, 7], "3–96"), ([], "?")])
def test_a_span_has_the_least_and_the_greatest_number(numbers: list[int], text: str) -> None:
    assert span_text(numbers) == text
