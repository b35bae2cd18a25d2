from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from rankscope import plots
from rankscope.errors import RankscopeError

SCRIPTS = Path(__file__).parents[2] / "figures"


def panels(figure: Figure) -> list[Axes]:
    return [ax for ax in figure.axes if ax.get_title()]


def legend_texts(figure: Figure) -> list[str]:
    legends = [*figure.legends, *(ax.get_legend() for ax in figure.axes)]
    return [text.get_text() for legend in legends if legend for text in legend.get_texts()]


def tick_sizes(figure: Figure) -> set[float]:
    axes = [ax for ax in figure.axes if ax.axison]
    labels = [label for ax in axes for label in (*ax.get_xticklabels(), *ax.get_yticklabels())]
    return {label.get_fontsize() for label in labels if label.get_text()}


def tick_steps(ax: Axes, marker: str) -> list[float]:
    return [x for line in ax.lines if line.get_marker() == marker for x in line.get_xdata()]


def test_every_figure_looks_the_same_wherever_it_is_made_and_drawn(results: Any) -> None:
    with plots.paper_style("icml-text"):
        size = tuple(mpl.rcParams["figure.figsize"])
    with plt.rc_context({"font.size": 20, "xtick.labelsize": 20, "figure.figsize": size}):
        for name, draw in plots.FIGURES.items():
            figure = draw(results)
            assert (figure is None) is name.endswith(
                ("gradients", "ov", "adapters", "cumulative-updates")
            )
            if figure is not None:
                figure.canvas.draw()
                assert tick_sizes(figure) == {7}
                assert figure.get_figwidth() == plots.WIDTHS["icml-text"]
    assert not plt.get_fignums()


def test_results_without_rows_give_no_figure(results: Any) -> None:
    class Empty:
        metrics = results.metrics.iloc[:0]
        training = pd.DataFrame()
        evaluation = results.evaluation.iloc[:0]

    assert [draw(Empty()) for draw in plots.FIGURES.values()] == [None] * len(plots.FIGURES)


def test_every_figure_says_what_it_needs_and_has_a_script() -> None:
    assert set(plots.FIGURES) == set(plots.DRAWN_FROM)
    assert set(plots.FIGURES) == {path.stem for path in SCRIPTS.glob("*.py")}


def test_per_has_a_panel_for_every_role_and_one_legend(table: pd.DataFrame) -> None:
    figure = plots.per(table)
    roles = [ax.get_title().split()[0] for ax in panels(figure)]
    assert roles == ["q", "k", "v", "o", "gate", "up", "down"]
    assert panels(figure)[1].get_title() == "k  32×64"
    texts = legend_texts(figure)
    assert texts[:2] == ["full", "relora"]
    assert "Gaussian matrix" in texts
    assert len(texts) == len(set(texts))
    assert (figure.get_supxlabel(), figure.get_supylabel()[:3]) == ("step", "PER")


def test_per_draws_the_gaussian_baseline_of_each_shape(table: pd.DataFrame) -> None:
    for ax, square in zip(panels(plots.per(table)), [True, False, False, True], strict=False):
        dotted = [
            line for line in ax.lines if line.get_linestyle() == ":" and len(line.get_xdata())
        ]
        (height,) = {float(np.asarray(line.get_ydata())[0]) for line in dotted}
        assert (height < 0.82) is square


def test_updates_show_the_rank_that_their_windows_allow(table: pd.DataFrame) -> None:
    """Over a whole cycle r, between two states of live adapters up to 2r, else nothing known."""
    cycle, live = (
        "adapter rank / min(m, n)",
        "rank of a change of live adapters (at most 2r) / min(m, n)",
    )
    relora = table[table["run"] == "relora"]
    updates = relora["component"].eq("update")
    doubled = relora["max_rank"].mask(updates, 2 * relora["max_rank"])
    for window, ranks, label, factor in (
        ("cycle", relora[["rows", "cols"]].min(axis=1), cycle, 1),
        ("within", doubled, live, 2),
        ("", doubled, live, 2),
        ("across", doubled, None, 0),
    ):
        figure = plots.per(
            relora.assign(window=window, max_rank=relora["max_rank"].mask(updates, ranks)), "update"
        )
        texts = legend_texts(figure)
        assert [one for one in (cycle, live) if one in texts] == ([label] if label else [])
        if label:
            adapter = relora[relora["component"].eq("adapter") & relora["role"].eq("q")].iloc[0]
            height = factor * adapter["max_rank"] / min(adapter["rows"], adapter["cols"])
            (ax,) = [one for one in panels(figure) if one.get_title().startswith("q ")]
            drawn = {float(line.get_ydata()[0]) for line in ax.lines if len(line.get_ydata())}
            assert any(math.isclose(height, one) for one in drawn)
    assert cycle not in legend_texts(plots.per(table))
    full = table[table["run"] == "full"]
    assert not {cycle, live} & set(legend_texts(plots.per(full, "update")))


def test_panels_of_condition_numbers_say_at_which_rank_they_are(table: pd.DataFrame) -> None:
    one = table[table["run"].eq("relora") & table["component"].eq("adapter")]
    for ranks, told in (
        ([4, 4], ", r = 4"),
        ([3, 4], ", r = 3–4"),
    ):
        rows = one.assign(numerical_rank=[ranks[i % 2] for i in range(len(one))])
        assert all(
            ax.get_title().endswith(told)
            for ax in panels(plots.condition_number(rows, "adapter"))
            if ax.get_title()
        )
    both = pd.concat([one.assign(numerical_rank=4), one.assign(run="b", numerical_rank=8)])
    titles = [ax.get_title() for ax in panels(plots.condition_number(both, "adapter"))]
    assert all(title.endswith(", r = 4–8 by run") for title in titles if title)
    weights = plots.condition_number(table)
    assert not any("r = " in ax.get_title() for ax in panels(weights))


def test_kappa_of_updates_is_over_the_values_they_can_have(table: pd.DataFrame) -> None:
    assert plots.condition_number(table).get_supylabel() == r"$\kappa = \sigma_1/\sigma_q$"
    assert r"\sigma_r" in plots.condition_number(table, "update").get_supylabel()
    assert r"{90}" in plots.condition_number(table, column="condition_number_90").get_supylabel()


@pytest.mark.parametrize("width", ["acl", "neurips", 2, 12])
def test_figures_fit_any_width(table: pd.DataFrame, width: str | float) -> None:
    with plots.paper_style(width):
        plots.per(table).canvas.draw()
        plots.heatmaps(table).canvas.draw()


def test_a_figure_of_one_role_has_one_panel(table: pd.DataFrame) -> None:
    figure = plots.per(table[table["role"] == "down"])
    assert len(figure.axes) == 1
    assert "relora" in legend_texts(figure)


def test_long_names_of_runs_leave_the_panels_their_size(table: pd.DataFrame) -> None:
    long = table.assign(run=table["run"] + "-with-4-layers-and-seed-12345")
    widths, heights = [], []
    for figure in (plots.per(table), plots.per(long)):
        figure.canvas.draw()
        box = panels(figure)[0].get_window_extent()
        widths.append(box.width)
        heights.append(box.height)
    assert widths[1] == pytest.approx(widths[0], rel=0.1)
    assert heights[1] == pytest.approx(heights[0], rel=0.2)


def test_a_run_may_be_called_anything(results: Any) -> None:
    name = r"$\frac{x$ _^%"
    table = results.metrics.assign(run=results.metrics["run"].replace("full", name))
    training = results.training.assign(run=results.training["run"].replace("full", name))
    for figure in (plots.per(table), plots.heatmaps(table), plots.losses(training)):
        figure.canvas.draw()


def test_loss_shows_validation_and_restarts(results: Any) -> None:
    ax = plots.loss(results.training)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "loss (nats per token)")
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts[:2] == ["full", "relora"]
    assert {"training, mean of 20 steps", "validation", "restart"} <= set(texts)
    assert tick_steps(ax, "|") == list(range(100, 1000, 100))


def test_loss_needs_only_run_step_and_loss(results: Any) -> None:
    plain = results.training[["run", "step", "loss"]]
    texts = [text.get_text() for text in plots.loss(plain).get_legend().get_texts()]
    assert "validation" not in texts
    assert "restart" not in texts


def test_a_run_keeps_its_colour_where_the_other_logged_nothing(results: Any) -> None:
    alone = results.training[results.training["run"] == "relora"]
    handles, labels = plots.loss(alone, runs=["full", "relora"]).get_legend_handles_labels()
    assert handles[labels.index("relora")].get_color() == "#D55E00"


def test_a_running_mean_of_a_constant_is_the_constant() -> None:
    training = pd.DataFrame({"run": "a", "step": range(0, 500, 3), "loss": 2.0})
    for line in plots.loss(training).lines:
        assert set(np.asarray(line.get_ydata(), dtype=float)) <= {2.0}


def test_a_long_training_is_drawn_without_a_warning() -> None:
    steps = np.arange(300_000)
    plots.losses(pd.DataFrame({"run": "a", "step": steps, "loss": 3 + np.cos(steps)})).canvas.draw()


def test_a_loss_that_is_not_finite_is_a_gap() -> None:
    training = pd.DataFrame({"run": "a", "step": range(9), "loss": [1.0] * 8 + [np.inf]})
    ax = plots.loss(training)
    ax.figure.canvas.draw()
    assert np.isfinite(ax.get_ylim()).all()


@pytest.mark.parametrize("training", [pd.DataFrame(), pd.DataFrame({"loss": [np.nan]})])
def test_training_without_a_loss_is_refused(training: pd.DataFrame) -> None:
    with pytest.raises(RankscopeError, match="no loss"):
        plots.loss(training)


def test_spectra_begin_at_one_and_name_their_band(results: Any) -> None:
    ax = plots.spectrum(results.spectra("update", step=200, role="down"))
    assert (ax.get_yscale(), ax.get_xlabel()) == ("log", "index i")
    first = [np.asarray(line.get_ydata())[0] for line in ax.lines if len(line.get_xdata()) > 3]
    assert first == pytest.approx([1.0, 1.0])
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert {"median over layers", "min to max over layers", "noise floor"} <= set(texts)


def test_one_spectrum_shows_the_interval_of_the_truth(results: Any) -> None:
    rows = results.spectra("update", run="full", step=200, layer=0, role="down")
    wide = rows.assign(lower=rows["singular_value"] * 0.5)
    for spectra, is_shown in ((rows, False), (wide, True)):
        ax = plots.spectrum(spectra, ax=plt.figure().add_subplot())
        texts = [text.get_text() for text in ax.get_legend().get_texts()]
        assert ("interval of the true value" in texts) is is_shown


def test_zeros_are_left_out_of_a_spectrum(results: Any) -> None:
    rows = results.spectra("update", run="full", step=200, layer=0, role="down")
    rows = rows.assign(singular_value=rows["singular_value"].where(rows["index"] < 10, 0.0))
    (line,) = [line for line in plots.spectrum(rows).lines if len(line.get_xdata()) > 3]
    assert len(line.get_xdata()) == 10


def test_a_zero_spectrum_is_refused(results: Any) -> None:
    with pytest.raises(RankscopeError, match="no singular value is positive"):
        plots.spectrum(results.spectra("update", run="relora", step=500))
    with pytest.raises(RankscopeError, match="no spectra"):
        plots.spectrum(results.spectra("update", step=5))


def test_update_spectra_show_an_early_a_middle_and_a_late_step(results: Any) -> None:
    figure = plots.update_spectra(results)
    assert [ax.get_title() for ax in panels(figure)] == ["step 100", "step 600", "step 900"]
    assert len(figure.axes) == 6


def test_heatmaps_share_one_labelled_scale(table: pd.DataFrame) -> None:
    figure = plots.heatmaps(table, component="update")
    meshes = [m for ax in figure.axes for m in ax.collections if isinstance(m, QuadMesh)]
    scales = {mesh.get_clim() for mesh in meshes if mesh.get_array().size > 3}
    values = table.loc[table["component"] == "update", "per"]
    assert scales == {(values.min(), values.max())}
    labels = [ax.get_ylabel() for ax in figure.axes]
    assert "PER = effective rank / min(m, n); hatched: undefined" in labels
    assert [ax.get_title() for ax in panels(figure)] == ["full", "relora"]


def test_a_heatmap_holds_the_values_by_layer_and_step(table: pd.DataFrame) -> None:
    ax = plots.heatmap(table, "per", run="full", role="q")
    chosen = table.query("component == 'weight' and run == 'full' and role == 'q'")
    values = chosen.pivot(index="layer", columns="step", values="per").to_numpy()
    np.testing.assert_array_equal(np.asarray(ax.collections[0].get_array()), values)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "layer")


def test_a_heatmap_of_unevenly_spaced_steps_keeps_their_distances(table: pd.DataFrame) -> None:
    chosen = table[table["step"].isin([0, 100, 900])]
    ax = plots.heatmap(chosen, "per", run="full", role="q", colorbar=False)
    mesh = ax.collections[0]
    assert isinstance(mesh, QuadMesh)
    assert list(mesh.get_coordinates()[0, :, 0]) == [-50, 50, 500, 1300]


def test_a_heatmap_of_a_single_step_is_drawn(table: pd.DataFrame) -> None:
    plots.heatmap(table[table["step"] == 0], "condition_number_90", run="full", role="q")
    plt.gcf().canvas.draw()


def test_matrices_outside_of_layers_have_no_map(table: pd.DataFrame) -> None:
    with pytest.raises(RankscopeError, match="belongs to a layer"):
        plots.heatmap(table.assign(layer=pd.NA), "per")


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
    assert ax.get_ylabel() == "rank of all merges, mean over layers"


def test_runs_that_merge_nothing_have_no_merged_rank(table: pd.DataFrame) -> None:
    with pytest.raises(RankscopeError, match="no rows with component 'merged_total'"):
        plots.merged_ranks(table[table["run"] == "full"])


def test_the_public_names_are_there_and_nothing_else() -> None:
    assert set(plots.__all__) == set(dir(plots))
    assert all(getattr(plots, name) is not None for name in plots.__all__)
    with pytest.raises(AttributeError, match="no attribute 'pre'"):
        plots.pre  # noqa: B018


def test_importing_plots_does_not_import_matplotlib() -> None:
    code = "import sys, rankscope.plots; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_saved_figure_is_the_same_bytes_each_time(table: pd.DataFrame, tmp_path: Path) -> None:
    written, one_role = [], table[table["role"] == "v"]
    for folder in (tmp_path / "a", tmp_path / "b"):
        with plots.paper_style():
            paths = plots.save_figure(plots.heatmaps(one_role), folder, "map")
        assert [path.name for path in paths] == ["map.pdf", "map.png"]
        assert sorted(path.name for path in folder.iterdir()) == ["map.pdf", "map.png"]
        written.append([path.read_bytes() for path in paths])
    assert written[0] == written[1]
    assert not re.search(rb"CreationDate|/Producer|/Type3", written[0][0])


def test_a_figure_that_cannot_be_saved_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = Figure()
    old = plots.save_figure(figure, tmp_path, "f")[0].read_bytes()

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="No space"):
        plots.save_figure(figure, tmp_path, "f")
    assert (tmp_path / "f.pdf").read_bytes() == old
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.pdf", "f.png"]


def test_a_saved_figure_has_the_width_of_the_column(tmp_path: Path) -> None:
    with plots.paper_style("acl"):
        figure, _ = plt.subplots()
        (_, png) = plots.save_figure(figure, tmp_path, "f")
    assert plt.imread(png).shape[1] == round(3.03 * 300)
    assert mpl.rcParams["savefig.dpi"] == "figure"
