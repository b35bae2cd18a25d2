from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from rankscope import plots
from rankscope.errors import RankscopeError


def test_what_adapters_of_different_ranks_can_add_is_a_mean_over_layers(
    table: pd.DataFrame,
) -> None:
    ranks = table["max_rank"].mask(table["component"].eq("merge") & table["layer"].eq(0), 8)
    ax = plots.merged_rank(table.assign(max_rank=ranks), role="k")
    line = next(x for x in ax.lines if x.get_linewidth() == 3.5)
    layers = table["layer"].dropna().nunique()
    assert np.asarray(line.get_ydata())[1] == pytest.approx(4 + 4 / layers)


def test_the_merged_rank_climbs_by_the_adapter_rank_up_to_the_least_side(
    table: pd.DataFrame,
) -> None:
    ax = plots.merged_rank(table, role="k")
    line = next(
        x for x in ax.lines if x.get_drawstyle() == "steps-post" and x.get_linewidth() == 3.5
    )
    assert list(line.get_ydata()) == [0, 4, 8, 12, 16, 20, 24, 28, 32, 32, 32]
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert {"relora", "numerical rank", "effective rank", "min(m, n)"} <= set(texts)
    assert "full" not in texts
    assert ax.get_ylabel() == "rank of the sum of merges, mean over layers"


def test_what_adapters_can_add_is_of_one_run_where_a_line_is_of_several(
    table: pd.DataFrame,
) -> None:
    seeds = [table[table["run"] == "relora"].assign(run=f"seed{i}") for i in range(2)]
    ax = plots.merged_rank(pd.concat(seeds).assign(method="relora"), role="k", hue="method")
    line = next(x for x in ax.lines if x.get_linewidth() == 3.5)
    assert list(line.get_ydata())[:4] == [0, 4, 8, 12]


def test_runs_that_merge_nothing_have_no_merged_rank(table: pd.DataFrame) -> None:
    with pytest.raises(RankscopeError, match="no rows with component 'merged_total'"):
        plots.merged_ranks(table[table["run"] == "full"])
