from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from rankscope import plots
from rankscope.errors import RankscopeError
from tests.plots.conftest import InMemory

COLUMNS = ["run", "step", "component", "layer", "role", "max_rank", "effective_rank"]


@dataclass
class Tables(InMemory):
    metrics: pd.DataFrame
    training: pd.DataFrame
    evaluation: pd.DataFrame = field(default_factory=pd.DataFrame)


def rows_of(
    step: int, component: str, ranks: Sequence[float], *, role: str = "q", share: float = 0.5
) -> list[tuple[object, ...]]:
    """One matrix a layer, of these ranks, of which the effective one is a share."""
    return [("a", step, component, i, role, r, share * r) for i, r in enumerate(ranks)]


def table_of(*rows: list[tuple[object, ...]]) -> pd.DataFrame:
    table = pd.DataFrame([row for some in rows for row in some], columns=COLUMNS)
    return table.assign(rows=16, cols=24, noise_share=0.0)


def log_of(steps: Sequence[int], energies: Sequence[float]) -> pd.DataFrame:
    return pd.DataFrame({"run": "a", "step": steps, "captured_energy": energies})


@pytest.fixture
def varied() -> pd.DataFrame:
    """Two cycles that end with a merge, at 10 and 20, and one that does not."""
    return table_of(
        rows_of(0, "adapter", [2, 4]),
        rows_of(10, "merge", [2, 4]),
        rows_of(15, "adapter", [5, 5], share=0.3),
        rows_of(20, "merge", [5, 5]),
        rows_of(25, "adapter", [1, 7]),
        *[rows_of(step, "weight", [16, 16]) for step in (0, 15, 25)],
    )


def staircase(ax: Axes, dashes: str) -> Line2D:
    stairs = [line for line in ax.lines if line.get_drawstyle() == "steps-pre"]
    (line,) = [line for line in stairs if line.get_linestyle() == dashes]
    return line


def height_at(line: Line2D, step: float) -> float:
    """Height of the drawn stairs, NaN in a gap: that of the next point, as its tread ends there."""
    steps = np.asarray(line.get_xdata(), dtype=float)
    return float(np.asarray(line.get_ydata(), dtype=float)[np.searchsorted(steps, step)])


def titled(figure: Figure) -> dict[str, Axes]:
    return {ax.get_title().split()[0]: ax for ax in figure.axes if ax.get_title()}


def drawn(table: pd.DataFrame, training: pd.DataFrame | None = None) -> Axes:
    return plots.adapter_rank(table, training=training, ax=Figure().add_subplot())


@pytest.mark.parametrize(
    ("step", "rank"), [(1, 3), (9, 3), (11, 5), (15, 5), (19, 5), (21, 4), (25, 4)]
)
def test_a_rank_holds_from_one_merge_to_the_next(
    varied: pd.DataFrame, step: float, rank: float
) -> None:
    assert height_at(staircase(drawn(varied), "-"), step) == rank


def test_the_band_goes_from_the_least_to_the_greatest_rank(varied: pd.DataFrame) -> None:
    ax = drawn(varied)
    # The entry of the legend is a band without a path.
    (path,) = [path for band in ax.collections for path in band.get_paths()]
    corners = np.asarray(path.vertices)
    for between, ends in {(0, 10): {2, 4}, (10, 20): {5}, (20, 25): {1, 7}}.items():
        inside = (corners[:, 0] > between[0]) & (corners[:, 0] < between[1])
        assert set(corners[inside, 1]) <= ends
    assert (corners[:, 1].min(), corners[:, 1].max()) == (1, 7)
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts[1:] == ["mean over layers", "min to max over layers", "effective rank when merged"]


@pytest.mark.parametrize(("step", "effective"), [(5, 1.5), (12, 2.5), (17, 2.5)])
def test_the_dashed_line_is_what_was_merged_not_what_was_on_the_way(
    varied: pd.DataFrame, step: float, effective: float
) -> None:
    line = staircase(drawn(varied), "--")
    assert height_at(line, step) == effective
    assert np.isnan(height_at(line, 22))


def test_a_cycle_that_learnt_nothing_merged_rank_zero(varied: pd.DataFrame) -> None:
    still = varied["component"].eq("merge") & varied["step"].eq(10)
    varied.loc[still, "effective_rank"] = np.nan
    assert height_at(staircase(drawn(varied), "--"), 5) == 0


def test_an_adapter_saved_with_a_merge_may_be_the_next_one(varied: pd.DataFrame) -> None:
    saved = table_of(rows_of(10, "adapter", [5, 5]))
    before, after = (
        staircase(drawn(table), "-").get_xydata()
        for table in (varied, pd.concat([varied, saved], ignore_index=True))
    )
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize(("log", "start"), [(None, 5), (log_of([8], [0.5]), 8)])
def test_after_a_full_rank_phase_the_line_begins_where_the_adapters_do(
    log: pd.DataFrame | None, start: int
) -> None:
    weights = [rows_of(step, "weight", [16]) for step in (0, 5, 10)]
    line = staircase(drawn(table_of(*weights, rows_of(10, "merge", [3])), log), "-")
    assert np.isnan(height_at(line, start - 0.1))
    assert height_at(line, start + 0.1) == 3


def test_between_two_low_rank_phases_there_is_a_gap() -> None:
    ends = [rows_of(10, "merge", [3]), rows_of(40, "merge", [2])]
    weights = [rows_of(step, "weight", [16]) for step in (0, 10, 20, 30, 40)]
    line = staircase(drawn(table_of(*ends, *weights)), "-")
    assert [height_at(line, step) for step in (5, 35)] == [3, 2]
    assert np.isnan([height_at(line, step) for step in (15, 25)]).all()


def test_equal_ranks_have_no_band() -> None:
    ax = drawn(table_of(rows_of(0, "adapter", [4, 4]), rows_of(5, "merge", [4, 4])))
    assert not ax.collections
    assert "mean over layers" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_ranks_of_a_table_without_adapters_are_refused(varied: pd.DataFrame) -> None:
    with pytest.raises(RankscopeError, match="no adapters and no merges"):
        plots.adapter_rank(varied[varied["component"] == "weight"])
    with pytest.raises(RankscopeError, match="of role 'v'"):
        plots.adapter_rank(varied, role="v")
    with pytest.raises(RankscopeError, match="no column 'component'"):
        plots.adapter_rank(varied[["run", "step"]])


def test_subspaces_are_the_shares_that_were_logged() -> None:
    log = log_of([0, 10, 20], [0.2, 0.6, 0.4]).assign(overlap=[np.nan, 0.1, 0.3])
    other = pd.DataFrame({"run": ["b"], "step": [5], "loss": [1.0]})
    ax = plots.subspaces(pd.concat([log, other]), runs=["0", "a", "b"])
    energy, overlap = [line for line in ax.lines if len(line.get_xdata())]
    np.testing.assert_array_equal(energy.get_ydata(), log["captured_energy"])
    np.testing.assert_array_equal(overlap.get_ydata(), log["overlap"])
    assert overlap.get_markerfacecolor() == "white"
    assert energy.get_color() == overlap.get_color() == "#D55E00"
    assert "b" not in [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.mark.parametrize("training", [pd.DataFrame(), log_of([5], [np.nan])])
def test_a_log_without_captured_energy_has_no_subspaces(training: pd.DataFrame) -> None:
    with pytest.raises(RankscopeError, match="captured_energy"):
        plots.subspaces(training)


@pytest.mark.slow
def test_the_figure_has_a_panel_for_every_role_and_one_of_subspaces(results: Any) -> None:
    figure = plots.adapter_ranks(results)
    axes = titled(figure)
    assert list(axes) == ["q", "k", "v", "o", "gate", "up", "down", "new"]
    assert (figure.get_supxlabel(), figure.get_supylabel()) == ("step", "adapter rank")
    assert axes["new"].get_ylabel() == "mean over adapters"
    assert axes["new"].get_ylim()[1] < 2 < axes["q"].get_ylim()[1]
    assert axes["new"].get_xlim() == axes["q"].get_xlim()


@pytest.mark.parametrize("greatest", ["q", "k", "down"])
@pytest.mark.slow
def test_every_panel_holds_its_band(greatest: str) -> None:
    most = {role: 9 if role == greatest else 2 for role in ("q", "k", "down")}
    merges = [rows_of(5, "merge", [1, rank], role=role) for role, rank in most.items()]
    starts = [rows_of(0, "adapter", [1, rank], role=role) for role, rank in most.items()]
    figure = plots.adapter_ranks(Tables(table_of(*merges, *starts), pd.DataFrame()))
    figure.draw_without_rendering()
    for ax in titled(figure).values():
        assert ax.get_ylim()[0] == 0
        assert 9 <= ax.get_ylim()[1] < 12


@pytest.mark.parametrize(
    ("ranks", "energies", "is_drawn"),
    [([4, 4], None, False), ([4, 5], None, True), ([4, 4], 0.5, True), ([], 0.5, True)],
)
@pytest.mark.slow
def test_the_figure_is_drawn_where_ranks_differ_or_subspaces_were_logged(
    ranks: list[int], energies: float | None, is_drawn: bool
) -> None:
    table = table_of(rows_of(0, "weight", [16, 16]), rows_of(5, "merge", ranks))
    log = pd.DataFrame() if energies is None else log_of([5], [energies])
    figure = plots.FIGURES["adapter-ranks"](Tables(table, log))
    assert (figure is not None) is is_drawn


def test_runs_of_different_ranks_without_a_policy_are_left_out(varied: pd.DataFrame) -> None:
    constant = varied.assign(max_rank=4)
    both = pd.concat([constant, constant.assign(run="b", max_rank=8)])
    assert plots.FIGURES["adapter-ranks"](Tables(both, pd.DataFrame())) is None


def test_results_without_adapters_and_captured_energy_are_refused(varied: pd.DataFrame) -> None:
    weights = varied[varied["component"] == "weight"]
    with pytest.raises(RankscopeError, match="no adapters, no merges and no captured energy"):
        plots.adapter_ranks(Tables(weights, pd.DataFrame()))


@pytest.mark.parametrize("width", ["acl", "acl-text", 2, 12])
@pytest.mark.slow
def test_the_figure_fits_any_width(results: Any, width: str | float) -> None:
    with plots.paper_style(width):
        figure = plots.adapter_ranks(results)
    figure.draw_without_rendering()
    assert figure.get_tightbbox().x1 <= figure.get_figwidth() + 0.05


def test_adapters_of_several_runs_are_one_line(varied: pd.DataFrame) -> None:
    both = pd.concat([varied, varied.assign(run="b", max_rank=varied["max_rank"] + 2)])
    ax = plots.adapter_rank(both.assign(method="m"), hue="method", ax=Figure().add_subplot())
    assert height_at(staircase(ax, "-"), 5) == 4
    assert "mean over layers, then over 2 runs" in [
        text.get_text() for text in ax.get_legend().get_texts()
    ]
