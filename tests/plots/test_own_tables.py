"""Tables that somebody wrote by hand: what qualifies a number may be missing, places may not."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from rankscope import plots
from rankscope.errors import WrongSettingError
from rankscope.statistics.correlation import COLUMNS
from rankscope.statistics.layer_cells import layer_cells
from rankscope.statistics.subspace_means import left_out
from tests.plots.comparisons import subspaces_of_two_runs
from tests.plots.drawn import legend_texts
from tests.plots.made_features import similarities

PLACES = ["run", "step", "layer", "role"]


def by_hand(*columns: str) -> pd.DataFrame:
    places = list(product("ab", (0, 10, 20), range(4), "qv"))
    table = pd.DataFrame(places, columns=PLACES).assign(component="weight")
    return table.assign(**dict.fromkeys(columns, 2.0 + 0.01 * table["step"]))


FIGURES: dict[str, Callable[[pd.DataFrame], Any]] = {
    "per": plots.per,
    "condition_number": plots.condition_number,
    "tail_index": plots.tail_index,
    "outliers": plots.outliers,
    "effective_rank": lambda table: plots.by_half(table, "effective_rank"),
    "stable_rank": lambda table: plots.depth_profiles(table, "stable_rank"),
}


@pytest.mark.parametrize("column", FIGURES)
def test_matrices_need_their_places_and_one_number(column: str) -> None:
    figure = FIGURES[column](by_hand(column))
    titles = {ax.get_title() for ax in figure.axes}
    assert {"q", "v"} <= titles or column == "stable_rank"
    assert "Gaussian matrix" not in legend_texts(figure)


@pytest.mark.parametrize("missing", PLACES)
@pytest.mark.parametrize("draw", [plots.heatmaps, plots.by_half, plots.depth_profiles])
def test_a_missing_place_is_named(draw: Callable[[pd.DataFrame], Any], missing: str) -> None:
    with pytest.raises(WrongSettingError, match=f"no column '{missing}': it has "):
        draw(by_hand("per").drop(columns=missing))


def test_depth_slopes_of_condition_numbers_without_a_status_are_of_all() -> None:
    table = by_hand().assign(condition_number=lambda rows: 10.0 ** rows["layer"])
    ax = plots.depth_slope(table, "condition_number", ax=plt.figure().add_subplot())
    heights = np.concatenate([np.asarray(line.get_ydata(), float) for line in ax.lines])
    assert {*heights.round(6)} == {0.0, 1.0}  # of no trend, and of the layers


def test_heads_without_sizes_have_no_value_by_chance() -> None:
    table = by_hand("rank_utilisation").assign(component="ov", head=0)
    figure = plots.head_maps(table, components=["ov"])
    assert "black line: two Gaussian factors" not in legend_texts(figure)


def test_scores_need_no_interval() -> None:
    scores = by_hand("value").drop_duplicates(["run", "step"])
    scores = scores.assign(task="t", group="all", metric="loss")
    figure = plots.performance(scores)
    assert legend_texts(figure)[:2] == ["a", "b"]
    assert not any("interval" in text for text in legend_texts(figure))


@pytest.mark.parametrize("missing", ["step", "task", "group", "metric", "value"])
def test_what_a_table_of_scores_lacks_is_named(missing: str) -> None:
    scores = by_hand("value").assign(task="t", group="all", metric="loss")
    with pytest.raises(WrongSettingError, match=f"no column '{missing}': it has "):
        plots.performance(scores.drop(columns=missing))


@pytest.mark.parametrize("missing", ["step", "name", "rows", "max_rank"])
def test_what_a_table_of_merges_lacks_is_named(table: pd.DataFrame, missing: str) -> None:
    merges = table[table["component"].isin(["merge", "merged_total"])].assign(name="")
    with pytest.raises(WrongSettingError, match=f"no column '{missing}': it has "):
        plots.merged_ranks(merges.drop(columns=missing))


def test_features_need_no_interval_and_no_tokens() -> None:
    features = by_hand("rankme").drop_duplicates(["run", "step", "layer"]).assign(at="block")
    assert legend_texts(plots.features(features)) == ["a", "b"]
    figure = plots.features_against_weights(by_hand("per"), features, "rankme")
    assert legend_texts(figure)[:2] == ["a", "b"]
    with pytest.raises(WrongSettingError, match="no column 'role': it has "):
        plots.features_against_weights(by_hand("per").drop(columns="role"), features, "rankme")


def test_spectra_need_a_noise_floor_and_decays_the_ends_of_intervals() -> None:
    spectra = by_hand()[:3].assign(step=0, index=range(3), singular_value=[3.0, 2.0, 1.0])
    with pytest.raises(WrongSettingError, match="no column 'noise_floor': it has "):
        plots.histogram(spectra)
    spectra["noise_floor"] = 0.0
    assert plots.histogram(spectra, ax=plt.figure().add_subplot()).get_xscale() == "log"
    with pytest.raises(WrongSettingError, match="no column 'lower': it has "):
        plots.spectrum(spectra)


def test_a_run_that_is_not_there_is_named() -> None:
    features = by_hand("rankme").drop_duplicates(["run", "step", "layer"]).assign(at="block")
    with pytest.raises(WrongSettingError, match="no rows with run 'c': the table holds a, b"):
        plots.feature_map(features, run="c")
    with pytest.raises(WrongSettingError, match="no rows with run 'c': the table holds full, "):
        plots.layer_similarity(similarities(), run="c")


def test_what_a_table_of_correlations_lacks_is_named() -> None:
    with pytest.raises(WrongSettingError, match="no column 'form': it has "):
        plots.rank_and_performance(pd.DataFrame(columns=[*COLUMNS]).drop(columns="form"))


@pytest.mark.parametrize("missing", ["run", "step"])
@pytest.mark.parametrize("draw", [plots.losses, plots.learning_rates])
def test_what_a_log_lacks_is_named(draw: Callable[[pd.DataFrame], Any], missing: str) -> None:
    logged = by_hand("loss", "learning_rate").drop(columns=missing)
    with pytest.raises(WrongSettingError, match=f"no column '{missing}': it has "):
        draw(logged)


@pytest.mark.parametrize("missing", ["run", "against", "k", "noise", "status"])
def test_what_a_table_of_subspaces_lacks_is_named(missing: str) -> None:
    with pytest.raises(WrongSettingError, match=f"no column '{missing}': it has "):
        plots.merge_overlaps(subspaces_of_two_runs().drop(columns=missing))


def test_reasons_are_those_of_rows_without_a_number_even_if_statuses_are_categories() -> None:
    rows = pd.DataFrame({"value": [0.5, None, None], "status": ["ok", "zero", "ok"]})
    rows["status"] = rows["status"].astype("category")
    assert left_out(rows[:2]) == "left out: 1 of 2 (zero)"
    assert left_out(rows[[True, False, True]]) == "left out: 1 of 2 (no number)"


def test_a_map_of_runs_without_a_common_step_is_refused_without_words_of_groups() -> None:
    table = by_hand("per")
    table = table[(table["run"] == "a") | (table["step"] == 0)]
    with pytest.raises(WrongSettingError, match="no step in common: a, b: choose one as `run`"):
        plots.heatmap(table[(table["run"] == "b") | (table["step"] > 0)], "per")


def test_a_cell_of_a_map_is_of_all_runs_or_has_no_number() -> None:
    table = by_hand("per").query("role == 'q'")
    is_unknown = (table["run"] == "b") & (table["step"] == 10) & (table["layer"] == 2)
    cells = layer_cells(table.assign(per=table["per"].mask(is_unknown)), "per")
    assert [*map(tuple, np.argwhere(cells.isna().to_numpy()))] == [(2, 1)]
    assert cells.drop(index=2).loc[0, 20] == pytest.approx(2.2)
