"""Tables that somebody wrote by hand: what qualifies a number may be missing, places may not."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from rankscope import plots
from rankscope.errors import WrongSettingError
from tests.plots.drawn import legend_texts

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
    heights = [float(y) for line in ax.lines for y in line.get_ydata() if float(y) != 0]
    assert heights == pytest.approx([1.0] * len(heights))
    assert heights


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


def test_features_need_no_interval_and_no_tokens() -> None:
    features = by_hand("rankme").drop_duplicates(["run", "step", "layer"]).assign(at="block")
    assert legend_texts(plots.features(features)) == ["a", "b"]
    figure = plots.features_against_weights(by_hand("per"), features, "rankme")
    assert legend_texts(figure)[:2] == ["a", "b"]


def test_spectra_need_a_noise_floor_and_decays_the_ends_of_intervals() -> None:
    places = {"run": "a", "step": 0, "layer": 0, "role": "q", "component": "weight"}
    spectra = pd.DataFrame({"index": range(3), "singular_value": [3.0, 2.0, 1.0]}).assign(**places)
    with pytest.raises(WrongSettingError, match="no column 'noise_floor': it has "):
        plots.histogram(spectra)
    spectra["noise_floor"] = 0.0
    assert plots.histogram(spectra, ax=plt.figure().add_subplot()).get_xscale() == "log"
    with pytest.raises(WrongSettingError, match="no column 'lower': it has "):
        plots.spectrum(spectra)
