from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import QuadMesh

from rankscope import plots
from rankscope.errors import RankscopeError
from tests.plots.comparisons import LAYERS, STEPS, subspaces_of_two_runs
from tests.plots.drawn import legend_texts


@pytest.fixture
def table() -> pd.DataFrame:
    return subspaces_of_two_runs()


def test_a_line_of_certain_ones_has_a_band_of_undecided_ones_and_a_null(
    table: pd.DataFrame,
) -> None:
    ax = plots.intruder_count(table, against="first")
    rows = table.query("measure == 'intruders' and run == 'full' and against == 0")
    counts = rows.groupby("step")["value"].agg(["mean", "min"])
    line, null = [one for one in ax.lines if len(one.get_xdata())][:2]
    assert list(line.get_ydata()) == pytest.approx(counts["mean"].tolist())
    assert set(null.get_ydata()) == {0.5}
    band = ax.collections[0].get_paths()[0].vertices
    assert band[:, 1].max() == pytest.approx((counts["mean"] + 2).max())


def test_there_is_a_map_for_every_run_on_one_scale(table: pd.DataFrame) -> None:
    figure = plots.intruders(table)
    assert [ax.get_title() for ax in figure.axes][:3] == ["all layers", "full", "relora"]
    parts = [part for ax in figure.axes[1:3] for part in ax.collections]
    meshes = [part for part in parts if isinstance(part, QuadMesh)]
    assert len(meshes) == 2
    cells = np.asarray(meshes[1].get_array())
    every = np.concatenate([np.asarray(mesh.get_array()).ravel() for mesh in meshes])
    assert {mesh.get_clim() for mesh in meshes} == {(every.min(), every.max())}
    assert cells.shape == (LAYERS, len(STEPS) - 1)
    first = table.query("run == 'relora' and measure == 'intruders' and step == 100 and layer == 0")
    assert cells[0, 0] == first["value"].mean()
    assert figure.get_supxlabel() == "step; against the previous checkpoint"


def test_cells_beyond_a_shorter_run_are_explained(table: pd.DataFrame) -> None:
    shorter = table[(table["run"] == "full") | (table["step"] < 400)]
    assert "hatched: nothing measured" in legend_texts(plots.intruders(shorter))
    assert not any("hatched" in text for text in legend_texts(plots.intruders(table)))


def test_matrices_without_all_vectors_have_no_intruders(table: pd.DataFrame) -> None:
    with pytest.raises(RankscopeError, match="no intruders of 'weight'"):
        plots.intruders(table[table["measure"] != "intruders"])
