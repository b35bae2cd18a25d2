from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from rankscope import plots
from rankscope.errors import RankscopeError
from tests.plots.drawn import legend_texts


def panels(figure: Figure) -> list[Axes]:
    return [ax for ax in figure.axes if ax.get_title()]


@pytest.mark.slow
def test_heatmaps_share_one_labelled_scale(table: pd.DataFrame) -> None:
    figure = plots.heatmaps(table, component="update")
    meshes = [m for ax in figure.axes for m in ax.collections if isinstance(m, QuadMesh)]
    scales = {mesh.get_clim() for mesh in meshes if mesh.get_array().size > 3}
    values = table.loc[table["component"] == "update", "per"]
    assert scales == {(values.min(), values.max())}
    assert "PER = effective rank / min(m, n)" in [ax.get_ylabel() for ax in figure.axes]
    assert legend_texts(figure) == ["hatched: undefined", "restart"]
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
    ax = plots.heatmap(table[table["step"] == 0], "condition_number_90", run="full", role="q")
    ax.figure.draw_without_rendering()
    assert np.asarray(ax.collections[0].get_array()).shape == (3, 1)


def test_matrices_outside_of_layers_have_no_map(table: pd.DataFrame) -> None:
    with pytest.raises(RankscopeError, match="belongs to a layer"):
        plots.heatmap(table.assign(layer=pd.NA), "per")


def test_a_role_that_a_run_lacks_is_said(table: pd.DataFrame) -> None:
    lacks = table["run"].eq("full") & table["role"].eq("gate")
    figure = plots.heatmaps(table[~lacks])
    texts = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert texts.count("no gate") == 1


@pytest.mark.parametrize("width", ["acl", "acl-text"])
@pytest.mark.parametrize("ending", ["", "-5L-relora-r6-lr6e-3-seed1", "_" + 40 * "x"])
@pytest.mark.slow
def test_titles_of_runs_do_not_overlap(table: pd.DataFrame, width: str, ending: str) -> None:
    rows = table[table["role"].isin(["q", "k"])]
    with plots.paper_style(width):
        figure = plots.heatmaps(rows.assign(run=rows["run"] + ending))
        figure.draw_without_rendering()
    left, right = [ax.title.get_window_extent() for ax in panels(figure)]
    assert left.x1 < right.x0
    assert left.x0 >= 0 and left.y1 <= figure.bbox.height


def test_maps_of_many_runs_go_on_below_one_another(table: pd.DataFrame) -> None:
    rows = table.query("role in ('q', 'k') and run == 'full' and component == 'weight'")
    names = [f"run-{number:02}" for number in range(11)]
    figure = plots.heatmaps(pd.concat(rows.assign(run=name) for name in names))
    figure.draw_without_rendering()
    named = panels(figure)
    assert [ax.get_title().replace("\n", "") for ax in named] == names
    boxes = [ax.get_position() for ax in named]
    assert len({round(box.y0, 3) for box in boxes}) == 2
    assert min(box.width for box in boxes) * figure.get_figwidth() > 0.5
    below = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert below == ["q", "k", "q", "k"]
    assert figure.get_figheight() < 9.7


def test_stripes_of_parts_of_cycles_are_explained(table: pd.DataFrame) -> None:
    for window, is_said in (("within", True), ("cycle", False)):
        figure = plots.heatmaps(table.assign(window=window), component="update")
        assert any("parts of cycles" in text for text in legend_texts(figure)) is is_said


def test_ov_circuits_are_not_called_by_the_role_they_are_filed_under(table: pd.DataFrame) -> None:
    circuits = table[table["role"].eq("o") & table["component"].eq("weight")]
    figure = plots.heatmaps(circuits.assign(component="ov"), component="ov")
    texts = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert texts == ["OV circuit"]


def test_a_map_of_replicates_is_their_mean_at_common_steps(table: pd.DataFrame) -> None:
    q = table.query("component == 'weight' and role == 'q'")
    figure = plots.heatmaps(q[(q["run"] == "full") | (q["step"] < 500)], group="f|r")
    (ax,) = panels(plots.heatmaps(q.query("run == 'full' or step < 500").assign(m="m"), hue="m"))
    wide = q.query("step < 500").pivot_table("per", "layer", ["step", "run"])
    wanted = wide.T.groupby("step").mean().T.to_numpy()
    np.testing.assert_allclose(np.asarray(ax.collections[0].get_array()), wanted)
    assert [panel.get_title() for panel in panels(figure)] == ["f", "r"]
