from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import QuadMesh

from rankscope import plots
from rankscope.errors import RankscopeError, WrongSettingError
from tests.plots.drawn import legend_texts

LAYERS, HEADS, WIDTH, SIZE = 3, 4, 48, 12


@pytest.fixture
def table() -> pd.DataFrame:
    """OV of two runs at two steps, QK of one of them at the first step only."""
    rng = np.random.default_rng(4)
    rows = [
        {"run": run, "step": step, "component": part, "layer": layer, "head": head, "role": "o"}
        | {
            "rows": WIDTH,
            "cols": WIDTH,
            "max_rank": SIZE,
            "rank_utilisation": rng.uniform(0.4, 0.6),
        }
        | {"spectral_norm": rng.uniform(1, 2)}
        for run in ("full", "relora")
        for part, steps in (("ov", (0, 50)), ("qk", (0,) if run == "full" else ()))
        for step in steps
        for layer in range(LAYERS)
        for head in range(HEADS)
    ]
    return pd.DataFrame(rows).astype({"layer": "Int64", "head": "Int64"})


def mesh_of(ax: object) -> QuadMesh:
    (mesh,) = [part for part in ax.collections if isinstance(part, QuadMesh)]  # type: ignore[attr-defined]
    return mesh


def test_a_map_has_a_cell_for_every_layer_and_head_at_the_last_step(table: pd.DataFrame) -> None:
    missing = table["layer"].eq(1) & table["head"].eq(2)
    ax = plots.head_map(table[~missing], run="full")
    last = table.query("run == 'full' and component == 'ov' and step == 50")
    values = last.pivot(index="layer", columns="head", values="rank_utilisation").to_numpy()
    cells = np.ma.filled(mesh_of(ax).get_array(), np.nan)
    assert np.isnan(cells[1, 2])
    cells[1, 2] = values[1, 2]
    np.testing.assert_array_equal(cells, values)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("head", "layer")


def test_the_colour_bar_is_marked_with_what_the_product_of_gaussian_factors_has(
    table: pd.DataFrame,
) -> None:
    ax = plots.head_map(table, run="full")
    bar = ax.figure.axes[1]
    assert "black line: two Gaussian factors" in bar.get_ylabel()
    marked = {line.get_ydata()[0] for line in bar.lines}
    rng = np.random.default_rng(9)
    ranks = []
    for _ in range(30):
        product = rng.normal(size=(WIDTH, SIZE)) @ rng.normal(size=(SIZE, WIDTH))
        s = np.linalg.svd(product, compute_uv=False)[:SIZE]
        ranks.append(np.exp(-(s / s.sum() * np.log(s / s.sum())).sum()) / SIZE)
    (by_chance,) = marked
    assert by_chance == pytest.approx(np.mean(ranks), abs=4 * np.std(ranks) / np.sqrt(16) + 1e-3)
    low, high = mesh_of(ax).get_clim()
    assert low < by_chance < high


def test_what_chance_gives_is_not_said_where_it_is_not_known(table: pd.DataFrame) -> None:
    for drawn in (
        plots.head_map(table, "spectral_norm", run="full"),
        plots.head_map(table.replace("ov", "ov_update"), component="ov_update", run="full"),
    ):
        assert not any("Gaussian" in ax.get_ylabel() for ax in drawn.figure.axes)


def test_circuits_are_side_by_side_on_one_scale_and_runs_below_each_other(
    table: pd.DataFrame,
) -> None:
    figure = plots.head_maps(table)
    panels = figure.axes[:4]
    assert [ax.get_title() for ax in panels] == ["OV", "QK", "", ""]
    assert len({mesh_of(ax).get_clim() for ax in panels[:3]}) == 1
    texts = [text.get_text() for ax in panels for text in ax.texts]
    assert texts == ["full\nstep 0–50", "no QK", "relora\nstep 50"]


@pytest.mark.parametrize("circuit", ["ov", "qk"])
def test_one_circuit_alone_is_drawn(table: pd.DataFrame, circuit: str) -> None:
    figure = plots.head_maps(table[table["component"] == circuit])
    assert figure.axes[0].get_title() == circuit.upper()


def test_what_cannot_be_drawn_is_answered_in_one_line(table: pd.DataFrame) -> None:
    with pytest.raises(RankscopeError, match="no ov and no qk"):
        plots.head_maps(table.replace({"ov": "weight", "qk": "weight"}))
    with pytest.raises(WrongSettingError, match="choose `run` from full, relora"):
        plots.head_map(table)
    with pytest.raises(WrongSettingError, match="no circuits at step 7: choose one of 0, 50"):
        plots.head_map(table, run="full", step=7)
    with pytest.raises(RankscopeError, match="not measured by layer and head"):
        plots.head_map(table.assign(head=pd.NA), run="full")


def test_replicates_have_the_mean_of_their_runs_at_the_last_step_of_all(
    table: pd.DataFrame,
) -> None:
    late = table[table["component"] == "ov"]
    late = late[(late["run"] == "full") | (late["step"] == 0)]
    figure = plots.head_maps(late, group="l")
    (mean,) = [mesh_of(ax) for ax in figure.axes[:1]]
    first = late[late["step"] == 0].groupby(["layer", "head"])["rank_utilisation"].mean()
    np.testing.assert_allclose(mean.get_array(), first.unstack().to_numpy(float))
    assert "mean over 2 runs" in legend_texts(figure)
