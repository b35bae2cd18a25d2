from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.lines import Line2D

from rankscope import plots
from rankscope.errors import RankscopeError
from rankscope.plots.metric_lines import MOST_MARKERS


def legend_texts(ax: Axes) -> list[str]:
    legend = ax.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


def markers(ax: Axes, *, hollow: bool) -> list[Line2D]:
    """Drawn points; legend entries have no data and do not count."""
    points = [line for line in ax.lines if line.get_linestyle() == "None" and len(line.get_xdata())]
    return [line for line in points if (line.get_markerfacecolor() == "white") is hollow]


def curves(ax: Axes) -> list[Line2D]:
    """Drawn lines, without points and without legend entries."""
    return [line for line in ax.lines if line.get_linestyle() != "None" and len(line.get_xdata())]


def steps(lines: list[Line2D]) -> list[float]:
    return sorted(float(x) for line in lines for x in np.asarray(line.get_xdata()))


def only(table: pd.DataFrame, component: str, run: str) -> pd.DataFrame:
    return table[(table["component"] == component) & (table["run"] == run)]


def test_metric_draws_on_the_axes_given_and_returns_them(table: pd.DataFrame) -> None:
    _, (left, right) = plt.subplots(1, 2)
    assert plots.metric(table, "per", ax=left) is left
    assert left.has_data()
    assert not right.has_data()


def test_without_axes_the_current_ones_are_drawn_on(table: pd.DataFrame) -> None:
    ax = plt.figure().add_subplot()
    assert plots.metric(table, "per") is ax


def test_metric_leaves_the_table_and_the_settings_alone(table: pd.DataFrame) -> None:
    before, settings = table.copy(), plt.rcParams.copy()
    plots.metric(table, "condition_number", role="q")
    pd.testing.assert_frame_equal(table, before)
    assert plt.rcParams == settings


def test_per_is_drawn_on_a_linear_axis_with_a_band_that_is_named(table: pd.DataFrame) -> None:
    ax = plots.metric(table, "per", role="q")
    assert (ax.get_xlabel(), ax.get_yscale()) == ("step", "linear")
    assert ax.get_ylabel() == "PER = effective rank / min(m, n)"
    assert legend_texts(ax)[:2] == ["full", "relora"]
    assert {"mean over layers", "min to max over layers"} <= set(legend_texts(ax))


def test_condition_numbers_are_drawn_on_a_log_axis(table: pd.DataFrame) -> None:
    ax = plots.metric(table, "condition_number", role="k")
    assert ax.get_yscale() == "log"
    assert {"median over layers", "10 to 90 % of layers"} <= set(legend_texts(ax))


def test_lines_go_through_the_mean_over_layers(table: pd.DataFrame) -> None:
    ax = plots.metric(table, "per", role="q")
    weights = table[(table["component"] == "weight") & (table["role"] == "q")]
    for run, line in zip(("full", "relora"), curves(ax), strict=True):
        mean = weights[weights["run"] == run].groupby("step")["per"].mean()
        np.testing.assert_allclose(np.asarray(line.get_ydata(), dtype=float), mean)


def test_points_that_noise_may_move_are_hollow(table: pd.DataFrame) -> None:
    table["noise_share"] = np.where(table["step"] == 300, 0.2, 0.0)
    ax = plots.metric(table, "per", role="q")
    assert steps(markers(ax, hollow=True)) == [300, 300]
    assert "noise may change it by > 1 %" in legend_texts(ax)


def test_a_step_of_zero_updates_is_a_hollow_marker_at_the_foot(table: pd.DataFrame) -> None:
    table["noise_share"] = 0.0
    ax = plots.metric(table, "per", component="update", role="v")
    (foot,) = markers(ax, hollow=True)
    assert steps([foot]) == [500]
    assert foot.get_transform() == ax.get_xaxis_transform()
    assert "undefined (at the bottom)" in legend_texts(ax)


def test_the_line_has_a_gap_where_nothing_is_defined(table: pd.DataFrame) -> None:
    ax = plots.metric(only(table, "update", "relora"), "per", component="update", role="v")
    (line,) = curves(ax)
    assert np.isnan(np.asarray(line.get_ydata(), dtype=float)).sum() == 1


def test_medians_known_from_below_are_hollow_with_an_arrow(table: pd.DataFrame) -> None:
    ax = plots.metric(table, "condition_number", role="q")
    arrows = [line for line in ax.lines if line.get_marker() == r"$\uparrow$"]
    drawn = [line for line in arrows if len(line.get_xdata())]
    hollow = markers(ax, hollow=True)
    assert steps(drawn) == steps(hollow) != []
    assert "lower bound only" in legend_texts(ax)
    assert max(np.max(np.asarray(line.get_ydata())) for line in hollow) < ax.get_ylim()[1]


def test_an_infinite_median_is_a_hollow_marker_at_the_head(table: pd.DataFrame) -> None:
    ax = plots.metric(table, "condition_number", component="adapter", role="v")
    at_head = [line for line in markers(ax, hollow=True) if set(line.get_ydata()) == {1.0}]
    assert len(at_head) == 1
    assert "infinite (at the top)" in legend_texts(ax)


def test_a_panel_without_a_run_keeps_the_colours_of_the_others(table: pd.DataFrame) -> None:
    both = plots.metric(table, "per", ax=plt.figure().add_subplot())
    one = plots.metric(table, "per", component="adapter", ax=plt.figure().add_subplot())

    def color(ax: Axes) -> str:
        handles, labels = ax.get_legend_handles_labels()
        return to_hex(handles[labels.index("relora")].get_color())

    assert color(both) == color(one)


def test_a_single_matrix_has_no_band_and_none_is_promised(table: pd.DataFrame) -> None:
    ax = plots.metric(table[table["layer"] == 0], "per", role="q")
    assert not [band for band in ax.collections if band.get_paths()[0].vertices.size > 10]
    assert not [text for text in legend_texts(ax) if "over" in text]


def test_a_single_step_has_a_bar_for_its_band(table: pd.DataFrame) -> None:
    ax = plots.metric(table.query("step == 300 and component == 'weight'"), "per", role="q")
    heights = [np.ptp(c.get_paths()[0].vertices[:, 1]) for c in ax.collections if c.get_paths()]
    assert len([height for height in heights if height > 0]) == 2


def test_lines_can_be_layers_instead_of_runs(table: pd.DataFrame) -> None:
    ax = plots.metric(only(table, "weight", "full"), "per", role="q", hue="layer")
    assert legend_texts(ax)[:3] == ["0", "1", "2"]


def test_long_series_have_few_markers(table: pd.DataFrame) -> None:
    row = only(table, "weight", "full").iloc[[0]]
    long = pd.concat([row.assign(step=step) for step in range(200)])
    ax = plots.metric(long, "per", role="q")
    assert len(steps(markers(ax, hollow=False))) <= MOST_MARKERS


@pytest.mark.slow
def test_one_noisy_step_of_many_is_still_marked(table: pd.DataFrame) -> None:
    row = only(table, "weight", "full").iloc[[0]]
    long = pd.concat([row.assign(step=s, noise_share=0.5 * (s == 77)) for s in range(200)])
    ax = plots.metric(long, "per", role="q")
    assert steps(markers(ax, hollow=True)) == [77]


def test_the_legend_can_be_left_to_the_caller(table: pd.DataFrame) -> None:
    ax = plots.metric(table, "per", legend=False)
    assert ax.get_legend() is None
    assert "relora" in ax.get_legend_handles_labels()[1]


@pytest.mark.parametrize(
    ("column", "component", "role", "message"),
    [
        ("pre", "weight", None, "unknown metric 'pre': .*, or one of per, effective_rank"),
        ("per", "weights", None, "no rows with component 'weights': the table holds weight"),
        ("per", "weight", "w_2", "no rows with role 'w_2': the table holds q, k, v"),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_ones(
    table: pd.DataFrame, column: str, component: str, role: str | None, message: str
) -> None:
    with pytest.raises(RankscopeError, match=message):
        plots.metric(table, column, component=component, role=role)


def test_a_table_of_something_else_is_refused() -> None:
    with pytest.raises(RankscopeError, match="no column 'component'"):
        plots.metric(pd.DataFrame({"loss": [1.0]}), "per")


def test_short_log_axes_have_plain_numbers(table: pd.DataFrame) -> None:
    ax = plots.metric(table, "condition_number_r", component="update", role="v")
    ax.figure.draw_without_rendering()
    shown = [text.get_text() for text in ax.get_yticklabels() if text.get_text()]
    assert {"5", "10", "20"} <= set(shown)


def test_a_line_is_cut_where_another_model_begins(table: pd.DataFrame) -> None:
    table.attrs["breaks"] = {"full": 300}
    ax = plots.metric(only(table, "weight", "full"), "per", role="q")
    assert [list(line.get_xdata()) for line in curves(ax)] == [
        [0, 100, 200],
        [300, 400, 500, 600, 700, 800, 900],
    ]


def test_windows_of_different_kinds_look_different_and_are_not_joined(table: pd.DataFrame) -> None:
    rows = only(table, "update", "relora")
    kinds = {100: "within", 200: "within", 300: "cycle", 400: "cycle"}
    rows = rows[rows["step"].isin([*kinds, 600, 700])]
    rows = rows.assign(window=rows["step"].map(kinds).fillna("across"))
    ax = plots.metric(rows, "per", component="update", role="v")
    widths = {tuple(line.get_xdata()): line.get_linewidth() for line in curves(ax)}
    assert widths.keys() == {(100, 200), (300, 400), (600, 700)}
    assert widths[100, 200] < widths[300, 400]
    sizes = {tuple(line.get_xdata()): line.get_markersize() for line in markers(ax, hollow=False)}
    assert sizes[600, 700] < sizes[300, 400]
    meanings = [text for text in legend_texts(ax) if "cycle" in text or "restarts" in text]
    assert meanings == [
        "part of a cycle (rank r after a restart, then up to 2r)",
        "across restarts",
    ]


def test_legend_entries_of_different_meaning_look_different(table: pd.DataFrame) -> None:
    windows = table["step"].map({100: "within", 200: "cycle", 300: "across"}).fillna("")
    for column, component in (("per", "update"), ("condition_number_r", "update")):
        ax = plt.figure().add_subplot()
        plots.metric(table.assign(window=windows), column, component=component, ax=ax)
        greys = [h for h in ax.get_legend_handles_labels()[0] if isinstance(h, Line2D)]
        looks = [
            (h.get_linestyle(), h.get_linewidth(), h.get_marker(), h.get_markerfacecolor())
            for h in greys
            if (h.get_color() == "0.35" and h.get_marker() != "None") or h.get_linestyle() != "None"
        ]
        hollow = [look for look in looks if look[3] == "white"]
        distinct_looks = [look for look in looks if look not in hollow]
        assert len(distinct_looks) == len(set(map(str, distinct_looks)))


def test_condition_numbers_at_different_ranks_are_called_incomparable(table: pd.DataFrame) -> None:
    note = "r differs by run: heights are not comparable"
    for role, column, is_said in (("q", "condition_number_r", True), ("q", "per", False)):
        ax = plots.metric(
            table, column, component="update", role=role, ax=plt.figure().add_subplot()
        )
        assert (note in legend_texts(ax)) is is_said
    alone = only(table, "update", "full")
    assert note not in legend_texts(
        plots.metric(alone, "condition_number_r", component="update", role="q")
    )
