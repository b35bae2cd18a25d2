"""Merges beside the losses around them, recomputed naively."""

import pandas as pd
import pytest

from rankscope.results.merge_table import MERGE_COLUMNS, merge_table
from rankscope.results.results import table_of

RANKS = {10: [(2, 1.5), (2, 1.0)], 20: [(4, 3.0), (3, 2.0)]}  # rank and effective rank by step


def metrics() -> pd.DataFrame:
    """Two matrices of one run; the bound on the rank is 2 per merge. A third one stays zero."""
    sums = [
        {
            **{"run": "a", "step": step, "layer": layer, "role": "q", "name": f"{layer}.q"},
            **{"component": "merged_total", "status": "ok", "max_rank": step // 5},
            **{"numerical_rank": rank, "effective_rank": effective},
            **{"rank_utilisation": effective / (step // 5)},
        }
        for step, matrices in RANKS.items()
        for layer, (rank, effective) in enumerate(matrices)
    ]
    zero = {"run": "a", "step": 10, "layer": 2, "component": "merged_total", "status": "zero"}
    return table_of([*sums, zero, {"run": "a", "step": 20, "component": "weight"}])


def training() -> pd.DataFrame:
    rows = [
        ("a", 5, None, None, 2.0, None),
        ("a", 10, "restart", 1, 1.5, 1.75),
        ("a", 20, "restart", 2, 1.0, 1.0),
        ("a", 30, "restart", 3, 0.9, 0.8),  # its merge was not analysed
    ]
    columns = ["run", "step", "event", "restart", "loss_before", "loss_after"]
    return pd.DataFrame(rows, columns=columns)


def test_a_row_has_the_losses_and_the_ranks_of_a_merge() -> None:
    found = merge_table(metrics(), training()).set_index("step")
    assert found["loss_jump"].tolist() == pytest.approx([0.25, 0.0, -0.1])
    assert found["restart"].tolist() == [1, 2, 3]
    first, second = found.loc[10], found.loc[20]
    assert (first["numerical_rank"], first["max_rank"], first["matrices"]) == (2, 2, 2)
    assert second["numerical_rank"] == 3.5
    assert second["rank_utilisation"] == pytest.approx((3 / 4 + 2 / 4) / 2)
    assert (second["least_utilisation"], second["most_utilisation"]) == (0.5, 0.75)
    assert found.loc[30, list(MERGE_COLUMNS[6:])].isna().all()  # nothing but its losses


def test_runs_without_logs_or_without_merges_have_what_there_is() -> None:
    alone = merge_table(metrics(), pd.DataFrame())
    assert alone["step"].tolist() == [10, 20]
    assert alone["loss_before"].isna().all()
    logged = merge_table(table_of([]), training())
    assert logged["step"].tolist() == [10, 20, 30]
    assert logged["numerical_rank"].isna().all()
    assert merge_table(table_of([]), pd.DataFrame()).columns.tolist() == list(MERGE_COLUMNS)
