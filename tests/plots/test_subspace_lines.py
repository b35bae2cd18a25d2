from __future__ import annotations

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rankscope import plots
from rankscope.errors import RankscopeError, WrongSettingError
from tests.plots.comparisons import STEPS, subspaces_of_two_runs


@pytest.fixture
def table() -> pd.DataFrame:
    return subspaces_of_two_runs()


def new_axes() -> Axes:
    return plt.figure().add_subplot()


def lines(ax: Axes, style: str) -> list[list[float]]:
    """Heights of the lines of a style that have points."""
    drawn = [line for line in ax.lines if line.get_linestyle() == style and len(line.get_xdata())]
    return [list(np.asarray(line.get_ydata(), float)) for line in drawn]


def legend_of(figure: Figure | Axes) -> list[str]:
    legend = figure.legends[0] if isinstance(figure, Figure) else figure.get_legend()
    return [text.get_text() for text in legend.get_texts()]


def naive(table: pd.DataFrame, run: str, k: int, column: str) -> list[float]:
    """Means over the matrices, step by step, each with the step before it."""
    means = []
    for before, step in itertools.pairwise(STEPS):
        values = [
            row[column]
            for row in table.to_dict("records")
            if (row["run"], row["step"], row["against"], row["k"]) == (run, step, before, k)
            and (row["measure"], row["component"], row["status"]) == ("overlap", "weight", "ok")
        ]
        means.append(float(np.mean(values)))
    return means


@pytest.mark.parametrize("k", [1, 4])
def test_lines_are_means_and_dotted_ones_what_chance_gives_the_same_matrices(
    table: pd.DataFrame, k: int
) -> None:
    ax = plots.overlap(table, k)
    assert lines(ax, "-")[0] == pytest.approx(naive(table, "full", k, "value"))
    nulls = lines(ax, ":")
    for run, heights in zip(("full", "relora"), nulls, strict=True):
        assert heights == pytest.approx(naive(table, run, k, "null"))


def test_the_legend_says_what_chance_is_and_counts_what_is_left_out(table: pd.DataFrame) -> None:
    texts = legend_of(plots.overlap(table, 4))
    assert texts[:2] == ["full", "relora"]
    assert texts[2:] == [
        "mean over layers, roles and sides",
        "by chance (Gaussian change of the same norm)",
        "error and rounding: at most 0.002",
        "left out: 16 of 96 (no gap)",
        "restart",
    ]
    energy = plots.overlap(table, 1, measure="update_energy", ax=new_axes())
    assert "by chance (unrelated subspaces)" in legend_of(energy)
    assert not any("left out" in text for text in legend_of(energy))


def test_bounds_that_are_seen_are_drawn_as_a_band(table: pd.DataFrame) -> None:
    ax = plots.overlap(table.assign(noise=0.05), 1)
    assert "bound on error and rounding" in legend_of(ax)
    band = ax.collections[0].get_paths()[0].vertices
    means = naive(table, "full", 1, "value")
    first = band[band[:, 0] == STEPS[1], 1]
    assert (first.min(), first.max()) == pytest.approx((means[0] - 0.05, means[0] + 0.05), abs=0.01)


def test_a_figure_has_a_row_for_each_size_and_counts_once(table: pd.DataFrame) -> None:
    figure = plots.overlaps(table)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["against the previous checkpoint", "against the first checkpoint", "", ""]
    assert [text.get_text() for ax in figure.axes for text in ax.texts] == ["k = 1", "k = 4"]
    counts = [text for text in legend_of(figure) if text.startswith("left out")]
    assert counts == ["left out: 32 of 384 (no gap)"]


def test_a_size_without_any_gap_has_no_row(table: pd.DataFrame) -> None:
    lost = table["k"] == 4
    none = table.assign(
        value=table["value"].mask(lost), status=table["status"].mask(lost, "no-gap")
    )
    assert len(plots.overlaps(none).axes) == 2
    none = none.assign(value=np.nan, status="no-gap")
    with pytest.raises(RankscopeError, match=r"no overlap of 'weight' has a number: left out"):
        plots.overlaps(none)


def test_a_single_comparison_shows_its_null_as_a_mark(table: pd.DataFrame) -> None:
    ax = plots.overlap(table[table["step"] == STEPS[1]], 1)
    assert [line.get_marker() for line in ax.lines if len(line.get_xdata())][1] == "_"


def test_lines_are_cut_where_another_model_begins(table: pd.DataFrame) -> None:
    table.attrs["breaks"] = {"full": 300}
    ax = plots.overlap(table, 1)
    assert [len(heights) for heights in lines(ax, "-")] == [2, 2]


def test_a_size_that_was_not_measured_is_answered_with_those_that_were(
    table: pd.DataFrame,
) -> None:
    with pytest.raises(WrongSettingError, match="of 16 dimensions: choose k from 1, 4"):
        plots.overlap(table, 16)


@pytest.mark.parametrize("draw", [plots.overlaps, plots.intruders, plots.merge_overlaps])
def test_results_without_subspaces_say_how_to_get_them(table: pd.DataFrame, draw: object) -> None:
    assert callable(draw)
    with pytest.raises(RankscopeError, match="call `analyze` with `subspaces`"):
        draw(table.iloc[:0])


def test_lines_may_be_layers_or_methods(table: pd.DataFrame) -> None:
    one = table[table["run"] == "full"]
    assert legend_of(plots.overlap(one, 1, hue="layer"))[:3] == ["0", "1", "2"]
    both = plots.overlap(table.assign(method="m"), 1, hue="method", ax=new_axes())
    assert legend_of(both)[:2] == ["m", "mean over layers, roles and sides, then over 2 runs"]
    mean = (np.array(naive(table, "full", 1, "value")) + naive(table, "relora", 1, "value")) / 2
    assert lines(both, "-")[0] == pytest.approx(mean)


def test_a_pattern_makes_replicates_with_a_band_from_run_to_run(table: pd.DataFrame) -> None:
    seeds = table.replace({"full": "m-0", "relora": "m-1"})
    ax = plots.overlap(seeds, 1, group=r"(.*)-\d")
    ends = np.array([naive(table, run, 1, "value") for run in ("full", "relora")])
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(ends.min() - 1e-3, abs=1e-6)
    assert band.max() == pytest.approx(ends.max() + 1e-3, abs=1e-6)
    assert "min to max over 2 runs, with error and rounding" in legend_of(ax)
    unequal = seeds[(seeds["run"] == "m-0") | (seeds["step"] != STEPS[-1])]
    ax = plots.overlap(unequal, 1, group=r"(.*)-\d", ax=new_axes())
    assert len(lines(ax, "-")[0]) == len(STEPS) - 2
    assert "left out: 1 points that some run of a group lacks" in legend_of(ax)
    for figure in (plots.overlaps, plots.intruders):
        assert "m" in legend_of(figure(seeds, group=r"(.*)-\d"))
