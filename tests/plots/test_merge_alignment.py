from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rankscope import plots
from rankscope.errors import WrongSettingError
from tests.plots.comparisons import RANK, SHAPES, subspaces_of_two_runs


@pytest.fixture
def table() -> pd.DataFrame:
    return subspaces_of_two_runs()


def test_column_and_row_spaces_are_compared_at_their_rank_and_merges_are_counted(
    table: pd.DataFrame,
) -> None:
    ax = plots.merge_overlap(table, role="up")
    columns, null, rows, null_of_rows = [line for line in ax.lines if len(line.get_xdata())]
    merges = table.query("component == 'merge' and role == 'up' and k == @RANK")
    for line, side in ((columns, "left"), (rows, "right")):
        assert list(line.get_xdata()) == [2, 3]
        of_side = merges[merges["side"] == side]
        pairs = zip(*(of_side[at].astype(int) for at in ("step", "against")), strict=True)
        is_next = [pair in {(200, 100), (400, 200)} for pair in pairs]
        means = of_side[is_next].groupby("step")["value"].mean()
        assert list(line.get_ydata()) == pytest.approx(means.tolist())
    assert columns.get_markerfacecolor() != "white" and rows.get_markerfacecolor() == "white"
    for line, dimensions in zip((null, null_of_rows), SHAPES["up"], strict=True):
        assert np.allclose(line.get_ydata(), RANK / dimensions)


def test_the_figure_has_a_panel_for_every_role_and_says_what_chance_gives(
    table: pd.DataFrame,
) -> None:
    figure = plots.merge_overlaps(table)
    assert [ax.get_title() for ax in figure.axes][:2] == ["q, r = 4", "up, r = 4"]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[:2] == ["relora", "mean over layers"]
    assert {"unrelated column spaces", "unrelated row spaces"} < {*texts}
    assert len([text for text in texts if text.startswith("error and rounding")]) == 1


def test_merges_of_different_ranks_are_each_compared_at_their_own(table: pd.DataFrame) -> None:
    lower = table["role"].eq("q") & table["layer"].eq(0) & table["k"].eq(RANK)
    merges = plots.merge_overlaps(table[~(lower & table["component"].eq("merge"))])
    assert merges.axes[0].get_title() == "q, r = 1–4"


def test_runs_without_two_merges_have_no_alignment(table: pd.DataFrame) -> None:
    with pytest.raises(WrongSettingError, match="no rows with component 'merge'"):
        plots.merge_overlap(table[table["run"] == "full"])


def test_replicates_are_compared_merge_by_merge_whatever_their_steps(table: pd.DataFrame) -> None:
    other = table.query("run == 'relora'").assign(run="relora-1")
    for column in ("step", "against"):
        other[column] = 2 * other[column]
    both = pd.concat([table.query("run == 'relora'"), other])
    ax = plots.merge_overlap(both, role="up", group="relora")
    line = next(line for line in ax.lines if len(line.get_xdata()))
    assert list(line.get_xdata()) == [2, 3]
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts[:2] == ["relora", "mean over layers, then over 2 runs"]
    assert not any("left out" in text for text in texts)


def test_a_merge_of_nothing_is_left_out_and_has_no_rank(table: pd.DataFrame) -> None:
    zero = table["component"].eq("merge") & table["role"].eq("q") & table["step"].eq(200)
    lost = table[zero].drop_duplicates(["layer", "side"])
    lost = lost.assign(k=0, value=np.nan, status="zero")
    figure = plots.merge_overlaps(pd.concat([table[~zero], lost]))
    assert figure.axes[0].get_title() == "q, r = 4"
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "left out: 6 of 24 (zero)" in texts
