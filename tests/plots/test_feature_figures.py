"""What the layers carry, drawn: the numbers of the tables, at their places, and said what of."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection, QuadMesh
from matplotlib.figure import Figure

from rankscope import plots
from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.plots.feature_figures import default_features
from rankscope.plots.gallery import gallery, selected
from rankscope.plots.style import series_styles
from rankscope.published import weiss2025
from rankscope.results.figure_source import FigureSource
from rankscope.results.results import table_of
from rankscope.statistics.feature_rows import few
from tests.plots.conftest import SyntheticResults
from tests.plots.drawn import legend_texts
from tests.plots.made_features import (
    HALF,
    PLACES,
    STEPS,
    alike,
    rankme,
    representations,
    similarities,
)

NOTHING = FigureSource({}, {}, {}, {})
FITTING = ("cka-layers-features", "cka-run-matrices-features", "features-against-weights")
MLP = ((0, "mlp"), (1, "mlp"), (2, "mlp"))


def points(ax: Axes, name: str, names: tuple[str, ...] = ("full", "relora")) -> dict[float, float]:
    """The drawn line of a series, by step; not what chance gives."""
    color = series_styles(names)[name].color
    lines = [
        x for x in ax.lines if x.get_color() == color and x.get_linestyle() not in ("None", ":")
    ]
    (line,) = [line for line in lines if len(line.get_xdata()) > 1]
    return dict(zip(*(np.asarray(of).round(9).tolist() for of in line.get_data()), strict=True))


def new_axes() -> Axes:
    return plt.subplots()[1]


def titles(figure: Figure) -> list[str]:
    return [ax.get_title() for ax in figure.axes if ax.get_title()]


def cells(ax: Axes) -> np.ndarray:
    (mesh,) = (part for part in ax.collections if isinstance(part, QuadMesh))
    return np.ma.filled(np.ma.asarray(mesh.get_array(), dtype=float), np.nan)


def labels(figure: Figure) -> str:
    """What the colour bar says."""
    return " ".join(" ".join(ax.get_ylabel() for ax in figure.axes).split())


def test_a_line_is_the_number_of_its_place_and_the_band_its_interval() -> None:
    ax = plots.feature(representations(), layer=0)
    for run in ("full", "relora"):
        assert points(ax, run) == {step: rankme(run, step, 0) for step in STEPS}
    bands = [part for part in ax.collections if isinstance(part, PolyCollection)]
    ends = bands[0].get_paths()[0].vertices[:, 1]
    assert (ends.min(), ends.max()) == (rankme("full", 0, 0) - HALF, rankme("full", 200, 0) + HALF)
    (height,) = {y for x in ax.lines if x.get_linestyle() == ":" for y in x.get_ydata()} - set(
        points(ax, "relora").values()
    )
    assert height == 15.5
    assert legend_texts(ax) == [
        "full", "relora", "Gaussian features of the same size", "95 % interval over documents",
        "text novels: 64 tokens",
    ]  # fmt: skip


def test_the_last_block_is_drawn_if_no_layer_is_asked_for() -> None:
    assert points(plots.feature(representations()), "full")[0] == rankme("full", 0, 1)
    with pytest.raises(RankscopeError, match="no features of layer 7: the table has -1, 0, 1, 2"):
        plots.feature(representations(), layer=7)
    with pytest.raises(WrongSettingError, match="no features with at 'mlp': there is block"):
        plots.feature(representations(), at="mlp")
    with pytest.raises(WrongSettingError, match="unknown number of features 'rank'"):
        plots.feature(representations(), "rank")


def test_what_is_not_to_be_trusted_is_hollow_and_what_is_not_there_at_the_foot() -> None:
    table = representations(rankme_resolved=9.0)
    table.loc[table["step"] == 200, ["rankme", "rankme_low", "rankme_high"]] = np.nan
    said = legend_texts(plots.feature(table, layer=0))
    assert "noise may change it by > 1 %" in said and "undefined (at the bottom)" in said


def test_heights_that_are_not_comparable_are_said_not_to_be() -> None:
    table = representations()
    table.loc[table["run"] == "relora", "tokens"] = 128
    said = "text novels: 64–128 tokens; the runs read different tokens: do not compare them"
    assert said in legend_texts(plots.feature(table))


def test_one_text_is_drawn_at_a_time() -> None:
    both = pd.concat([representations(text="zeta"), representations()])
    assert "text novels: 64 tokens" in legend_texts(plots.feature(both))
    assert "text zeta: 64 tokens" in legend_texts(plots.feature(both, text="zeta"))


def test_a_figure_has_a_panel_for_every_place_and_few_of_many() -> None:
    assert titles(plots.features(representations())) == [
        "embedding", "block 0", "block 1", "after the last norm",
    ]  # fmt: skip
    assert few(range(34), 8) == [0, 5, 9, 14, 19, 24, 28, 33]


def test_replicates_have_their_mean_and_range() -> None:
    ax = plots.feature(representations(), layer=0, group="(?:full|rel)o?")
    assert "mean over 1 run" in legend_texts(ax)
    table = representations()
    table["run"] = table["run"].map({"full": "seed-0", "relora": "seed-1"})
    ax = plots.feature(table, layer=0, group="(seed)", ax=new_axes())
    mean = (rankme("full", 0, 0) + rankme("relora", 0, 0)) / 2
    assert points(ax, "seed", ("seed",))[0] == mean
    assert "min to max over 2 runs" in legend_texts(ax)


def test_a_map_has_layers_upwards_and_the_ends_by_name() -> None:
    ax = plots.feature_map(representations(), run="relora")
    wanted = [[rankme("relora", step, layer) for step in STEPS] for layer, _ in PLACES]
    np.testing.assert_allclose(cells(ax), wanted)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["emb.", "0", "1", "norm"]


@pytest.mark.parametrize("comparison", ["last", "previous"])
def test_similarity_over_steps_is_of_its_own_comparison(comparison: Any) -> None:
    ax = plots.similarity(similarities(), comparison=comparison, layer=0)
    wanted = {
        "last": {step: round(alike(1, 0, 2 - step / 100), 9) for step in STEPS[:-1]},
        "previous": {step: round(alike(1, 0), 9) for step in STEPS[1:]},
    }
    assert points(ax, "relora") == wanted[comparison]
    assert ax.get_ylabel().startswith("CKA, unbiased, with the")


def test_chance_of_canonical_correlations_is_drawn_and_no_interval_is_made_up() -> None:
    ax = plots.similarity(similarities(), "svcca", layer=0)
    assert {0.3} == {y for x in ax.lines if x.get_linestyle() == ":" for y in x.get_ydata()[:1]} - {
        points(ax, "relora")[0]
    }
    assert "95 % interval over documents" not in legend_texts(ax)


def test_two_runs_are_one_line_and_groups_of_them_one_pair_of_groups() -> None:
    names = ("a-0", "a-1", "b-0")
    table = similarities(names)
    ax = plots.similarity(table, comparison="runs", layer=0)
    pairs = ("a-0 × a-1", "a-0 × b-0", "a-1 × b-0")
    assert points(ax, pairs[1], pairs)[0] == round(alike(0, 2, 0, 0), 9)
    ax = plots.similarity(table, comparison="runs", layer=0, group="(.)-", ax=new_axes())
    means = points(ax, "a × b", ("a × a", "a × b"))
    assert means[0] == pytest.approx((alike(0, 2, 0, 0) + alike(1, 2, 0, 0)) / 2)
    many = similarities(tuple("abcdef"), PLACES[:1])
    with pytest.raises(RankscopeError, match="15 pairs of runs are too many lines"):
        plots.similarity(many, comparison="runs", layer=-1)


def test_a_matrix_of_layers_is_symmetric_with_ones_on_its_diagonal() -> None:
    ax = plots.layer_similarity(similarities(), run="relora", step=100)
    wanted = np.eye(4)
    for i, j in combinations(range(4), 2):
        wanted[i, j] = wanted[j, i] = alike(1, PLACES[i][0], PLACES[j][0], 1)
    np.testing.assert_allclose(cells(ax), wanted)
    for axis in (ax.xaxis, ax.yaxis):
        assert [label.get_text() for label in axis.get_ticklabels()] == ["emb.", "0", "1", "norm"]
    with pytest.raises(WrongSettingError, match="no step 50 of these runs"):
        plots.layer_similarity(similarities(), step=50)


def test_matrices_of_layers_have_a_row_for_every_step_on_one_scale() -> None:
    figure = plots.layer_similarities(similarities())
    panels = [ax for ax in figure.axes if ax.get_label() != "<colorbar>"]
    assert len(panels) == 6 and titles(figure) == ["full", "relora"]
    assert len({ax.collections[0].get_clim() for ax in panels}) == 1
    assert cells(panels[1])[0, 1] == pytest.approx(alike(1, -1, 0, 0))
    assert "CKA, unbiased, of two layers" in labels(figure)
    assert legend_texts(figure) == ["text novels: 64 tokens"]


def test_a_matrix_of_runs_is_at_one_step_and_of_groups_a_mean_of_pairs() -> None:
    names = ("a-0", "a-1", "b-0")
    table = similarities(names)
    matrix = cells(plots.run_similarities(table, step=100).axes[1])
    wanted = np.eye(3)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        wanted[i, j] = wanted[j, i] = alike(i, j, 0, 1)
    np.testing.assert_allclose(matrix, wanted)
    figure = plots.run_similarities(table, group="(.)-")
    grouped = cells(figure.axes[1])
    assert grouped[0, 0] == pytest.approx(alike(0, 1, 0, 2)) and np.isnan(grouped[1, 1])
    assert grouped[0, 1] == pytest.approx((alike(0, 2, 0, 2) + alike(1, 2, 0, 2)) / 2)
    wanted = {"at step 200", "means over pairs of runs", "hatched: none"}
    assert wanted <= {*legend_texts(figure)}


def test_a_pair_of_groups_counts_whatever_order_its_runs_have() -> None:
    names = ("1-a", "2-b", "3-a")  # the pairs 1-a × 2-b and 2-b × 3-a, which read b × a
    figure = plots.run_similarities(similarities(names), step=100, group="-(.)")
    mean = (alike(0, 1, 0, 1) + alike(1, 2, 0, 1)) / 2
    np.testing.assert_allclose(cells(figure.axes[1])[[0, 1], [1, 0]], mean)


def test_the_last_step_of_pairs_has_numbers_and_without_them_nothing_is_like_itself() -> None:
    table = similarities()
    table.loc[(table["step"] == 200) & (table["comparison"] == "runs"), "cka"] = np.nan
    assert "at step 100" in legend_texts(plots.run_similarities(table))
    is_lost = (table["comparison"] == "layers") & (table["run"] == "full")
    table.loc[is_lost & table[["layer", "against_layer"]].eq(1).any(axis=1), "cka"] = np.nan
    figure = plots.layer_similarities(table)
    assert np.diag(cells(figure.axes[0]))[[0, 1, 3]].tolist() == [1, 1, 1]
    assert np.isnan(cells(figure.axes[0])[2]).all()
    assert "hatched: no number" in legend_texts(figure)


def test_maps_say_what_is_hatched() -> None:
    table = representations()
    assert legend_texts(plots.feature_maps(table)) == ["text novels: 64 tokens"]
    table.loc[table["step"] == 100, "rankme"] = np.nan
    assert "hatched: no number" in legend_texts(plots.feature_maps(table))


def test_runs_of_different_steps_are_drawn_where_they_have_been() -> None:
    table = similarities()
    table = table[(table["run"] == "full") == (table["step"] == 100)]
    with pytest.raises(RankscopeError, match="no step in common: choose `steps`, or draw one run"):
        plots.layer_similarities(table)
    figure = plots.layer_similarities(table, steps=[100, 200])
    said = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert said == ["no step 100", "step 100", "no step 200", "step 200"]


def test_matrices_too_small_to_read_are_not_drawn() -> None:
    with (
        plots.paper_style("acl"),
        pytest.raises(RankscopeError, match="matrices of 12 runs are too many for a page"),
    ):
        plots.layer_similarities(similarities(tuple("abcdefghijkl"), PLACES[:2]))


def test_pairs_restart_where_either_run_does_and_break_where_both_are_new() -> None:
    table = similarities(("a", "b"))
    table.attrs = {"unit": "step", "restarts": {"a": [50], "b": [50, 150]}, "breaks": {"b": 100}}
    ax = plots.similarity(table, comparison="runs", layer=0)
    ticks = [s for part in ax.collections if isinstance(part, LineCollection)
             for s in part.get_segments()]  # fmt: skip
    assert {50, 150} <= {segment[0][0] for segment in ticks}
    assert sorted(len(x.get_xdata()) for x in ax.lines if x.get_linestyle() == "-") == [0, 1, 2]


def test_long_names_of_pairs_keep_their_sign_and_differ() -> None:
    long = "llama-11M_bs1024_{}-lr3e-3-warmup500-cosine_seed1_2025-11-27T08-12-44"
    pairs = tuple(long.format(run) for run in ("as-published", "full", "relora"))
    table = similarities(pairs, PLACES[:1])
    ax = plots.similarity(table, comparison="runs", layer=-1)
    wanted = ["…as-published… × …full…", "…as-published… × …relora…", "…full… × …relora…"]
    assert legend_texts(ax)[:3] == wanted


def grey(ax: Axes) -> list[list[float]]:
    lines = [x for x in ax.lines if x.get_alpha() and len(x.get_xdata())]
    return sorted(np.asarray(line.get_ydata()).tolist() for line in lines)


def test_published_curves_are_of_the_same_estimator_object_and_half() -> None:
    table = similarities(places=MLP)
    figure = plots.similarities(table, "cka_biased", at="mlp", published=True)
    for ax, half in zip(figure.axes, ("first_six", "", "last_six"), strict=False):
        rows = weiss2025("cka")
        rows = rows[(rows["matrix"] == "swiglu.w_2") & (rows["layers"] == half)]
        curves = rows.sort_values("step").groupby(["model", "scale_printed"])["value"]
        assert grey(ax) == sorted(curves.apply(list))
    assert figure.get_supylabel().replace("\n", " ").startswith("CKA, biased")
    assert figure.axes[0].get_xscale() == "symlog"  # else 200 of 20,000 steps would be squeezed
    longer = table.assign(step=table["step"] * 60)
    figure = plots.similarities(longer, "cka_biased", at="mlp", published=True)
    assert figure.axes[0].get_xscale() == "linear"
    with pytest.raises(WrongSettingError, match="are of 'cka_biased' with the last step"):
        plots.similarities(table, at="mlp", published=True)
    with pytest.raises(WrongSettingError, match="nothing is published of the features of 'block'"):
        plots.similarities(similarities(), "cka_biased", published=True)


@pytest.fixture(scope="module")
def made() -> SyntheticResults:
    """Results of weights and features; PER of the weights of layer l is 0.5 + l/10."""
    empty = pd.DataFrame(columns=["run", "step"])
    rows = [
        {"run": run, "step": step, "layer": layer, "role": "q", "component": "weight"}
        | {"name": f"{layer}.q", "rows": 8, "cols": 8, "status": "ok", "per": 0.5 + layer / 10}
        for run in ("full", "relora")
        for step in (0, 100)
        for layer in range(2)
    ]
    tables = representations(), pd.concat([similarities(), similarities(places=MLP)])
    evaluation = pd.DataFrame(columns=["run", "step", "task", "group", "metric", "value"])
    return SyntheticResults(table_of(rows), empty, empty, evaluation, empty, *tables)


def test_features_after_a_block_are_beside_the_weights_in_it(made: SyntheticResults) -> None:
    figure = plots.features_against_weights(made.metrics, made.representations)
    (ax,) = [ax for ax in figure.axes if ax.get_title()]
    drawn = points(ax, "relora")
    assert drawn == {0.5: rankme("relora", 100, 0) / 16, 0.6: rankme("relora", 100, 1) / 16}
    (bars,) = [part for part in ax.collections if isinstance(part, LineCollection)][:1]
    first = rankme("full", 100, 0) / 16
    assert bars.get_segments()[0][:, 1].tolist() == [first - 0.01, first + 0.01]
    assert figure.get_supxlabel().endswith("of the block's weights, at step 100")
    with pytest.raises(WrongSettingError, match="no step 200 of weights and features"):
        plots.features_against_weights(made.metrics, made.representations, step=200)


def test_each_run_has_its_own_last_step_where_all_share_the_first_at_most(
    made: SyntheticResults,
) -> None:
    table = made.representations
    own = table[(table["step"] == 0) | (table["run"] == "full") | (table["step"] == 200)]
    metrics = made.metrics.assign(
        step=made.metrics["step"].where(made.metrics["run"] == "full", made.metrics["step"] * 2)
    )
    figure = plots.features_against_weights(metrics, own)
    (ax,) = [ax for ax in figure.axes if ax.get_title()]
    assert next(iter(points(ax, "full").values())) == rankme("full", 100, 0) / 16
    assert next(iter(points(ax, "relora").values())) == rankme("relora", 200, 0) / 16
    said = figure.get_supxlabel().replace("\n", " ")
    assert said.endswith("at the last step of each run (100–200)")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["heatmap-rankme-features", *FITTING])
def test_every_figure_fits_its_column_and_says_what_it_shows(
    made: SyntheticResults, name: str
) -> None:
    with plots.paper_style("acl"):
        found = plots.FIGURES[name].with_caption(name, made, NOTHING)  # type: ignore[arg-type]
        assert found is not None
        figure, caption = found
        figure.draw_without_rendering()
    boxes = [ax.get_tightbbox() for ax in figure.axes if ax.axison]
    boxes += [text.get_window_extent() for text in figure.texts]
    assert min(box.x0 for box in boxes) > -1 and min(box.y0 for box in boxes) > -1
    assert max(box.x1 for box in boxes) < figure.bbox.x1 + 1
    assert "full" in str(caption) and "novels: 64 tokens" in str(caption)


def test_all_figures_have_their_data(made: Any) -> None:
    there = {name for name, figure in plots.FIGURES.items() if figure.has_data(made)}
    assert there >= {*default_features("block"), "features-against-weights"}


def test_other_places_have_figures_where_they_were_measured(made: Any) -> None:
    every = gallery(made)
    assert "cka-last-step-mlp-outputs" not in plots.FIGURES
    rows = representations()
    both = pd.concat([rows, rows[rows["at"] == "block"].assign(at="mlp")])
    every = gallery(replace(made, representations=both))
    assert {"rankme-mlp-outputs", "cka-last-step-mlp-outputs"} <= {*every}
    over = every["cka-last-step-mlp-outputs"].over_published(made)
    figure = over(made)
    assert figure is not None and any("Weiss et al. 2025" in text for text in legend_texts(figure))


def test_every_text_and_kind_of_tokens_has_its_own_figures(made: Any) -> None:
    first, other = representations(), representations(text="zeta/b", rankme=7.0)
    last = representations(features="last", rankme=3.0)
    probes = replace(made, representations=pd.concat([other, last, first]))
    every = gallery(probes)
    heights = {}
    for name in ("rankme-features", "rankme-features-last", "rankme-features-zeta-b"):
        figure = every[name](probes)
        assert figure is not None
        heights[name] = points(figure.axes[1], "full")[0]
    assert [*heights.values()] == [rankme("full", 0, 0), 3.0, 7.0]
    assert every["rankme-features-zeta-b"].title == "RankMe of features, zeta/b"
    assert "cka-runs-features-last" not in every and "cka-runs-features" in every
    assert {*gallery(probes, only=["per-features-last"])} == {"per-features-last"}


def test_runs_are_chosen_on_both_sides_and_grouped_in_every_table(made: Any) -> None:
    chosen = selected(made, runs=["full"])
    assert {*chosen.representations["run"]} == {"full"}
    assert "runs" not in {*chosen.similarities["comparison"]}
    grouped = selected(made, group="(f)ull|(r)elora").similarities
    pairs = grouped.query("comparison == 'runs'")[["run_group", "against_run_group"]]
    assert {*pairs.itertuples(index=False, name=None)} == {("f", "r")}


def test_the_order_of_rows_does_not_matter() -> None:
    table = similarities().sample(frac=1, random_state=1)
    steps = [*points(plots.similarity(table, layer=0), "full")]
    assert steps == sorted(steps)
    np.testing.assert_array_equal(
        cells(plots.layer_similarity(table, run="full", ax=new_axes())),
        cells(plots.layer_similarity(similarities(), run="full", ax=new_axes())),
    )
