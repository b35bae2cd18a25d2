"""How much of what weights read lies where they look: drawn, and in a sentence."""

from __future__ import annotations

from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from rankscope import plots
from rankscope.errors import WrongSettingError
from rankscope.plots.gallery import FIGURES, gallery, selected
from rankscope.plots.panel import GREY
from rankscope.plots.style import series_styles
from rankscope.report.answer_on_features import energy_sentence
from rankscope.results.representation_tables import typed_input_energies
from tests.plots.conftest import SyntheticResults
from tests.plots.drawn import legend_texts

CHANCE = 0.25
TIMES = {("full", 0): 1.0, ("full", 100): 2.5, ("relora", 0): np.nan, ("relora", 100): 0.75}


def energies(component: str = "update", **others: Any) -> pd.DataFrame:
    """Two layers on either side of `TIMES`, in half of which other shares are not drawn."""
    rows = [
        {"run": run, "step": step, "layer": layer, "role": role, "weight_share": share}
        | {"energy_share_centred": CHANCE * times * (1 + 0.2 * (layer - 0.5)) * (share / 0.9)}
        for (run, step), times in TIMES.items()
        for layer in (0, 1)
        for role in ("down", "q")
        for share in (0.5, 0.9)
    ]
    table = pd.DataFrame(rows).assign(
        text="novels", features="all", component=component, span="", probe="p", dimensions=16,
        energy_share_chance_centred=CHANCE,
    ).assign(**others)  # fmt: skip
    return typed_input_energies(table)


def of_color(ax: Axes, color: str) -> list[list[tuple[float, float]]]:
    """Points of every line of this colour, without those that are markers only."""
    lines = [one for one in ax.lines if one.get_color() == color and one.get_linestyle() != "None"]
    pairs = [(np.asarray(x, float), np.asarray(y, float)) for x, y in map(Line2D.get_data, lines)]
    return [[*zip(x.tolist(), y.tolist(), strict=True)] for x, y in pairs if len(x) > 1]


def drawn(ax: Axes, name: str) -> dict[float, float]:
    (line,) = of_color(ax, series_styles(("full", "relora"))[name].color)
    return dict(line)


def test_lines_are_means_over_layers_over_chance() -> None:
    figure = plots.input_energies(energies(), "update")
    assert [ax.get_title() for ax in figure.axes][:2] == ["q  d = 16", "down  d = 16"]
    for ax in figure.axes[:2]:
        assert drawn(ax, "full") == pytest.approx({0: 1.0, 100: 2.5})
        assert drawn(ax, "relora") == pytest.approx({0: np.nan, 100: 0.75}, nan_ok=True)
        assert [[height for _, height in line] for line in of_color(ax, GREY)] == [[1, 1]]
    with plt.ioff():
        ax = plots.input_energy(energies(), component="update", role="q", ax=plt.subplots()[1])
    assert {"random directions", "undefined (at the bottom)"} <= {*legend_texts(ax)}
    with pytest.raises(WrongSettingError, match="no rows with component 'weight'"):
        plots.input_energies(energies())


def test_the_gallery_draws_components_that_were_measured(results: SyntheticResults) -> None:
    measured: Any = SyntheticResults(**(vars(results) | {"input_energies": energies()}))
    there = [name for name in gallery(measured) if name.startswith("input-energy")]
    assert there == ["input-energy-weights", "input-energy-updates", "input-energy-adapters"]
    of = selected(measured, runs=["full"], roles=["down"])
    assert [name for name in there if FIGURES[name].has_data(of)] == ["input-energy-updates"]
    figure = FIGURES["input-energy-updates"](of)
    assert figure is not None and [ax.get_title() for ax in figure.axes][:1] == ["down  d = 16"]


def test_the_answer_says_what_the_last_updates_hold() -> None:
    assert energy_sentence(energies()) == (
        "Of the energy of the weights' inputs, the leading directions of the last updates hold "
        "this many times as much as random directions (mean over the matrices of blocks, features "
        "centred): 2.50 in full and 0.75 in relora."
    )
    head = energies(layer=None, energy_share_centred=1.0)
    assert energy_sentence(pd.concat([energies(), head])) == energy_sentence(energies())
    both = pd.concat([energies("weight"), energies("adapter", weight_share=1.0)])
    assert "the row spaces of the last adapters hold" in energy_sentence(both)
    assert energy_sentence(energies().iloc[:0]) == ""
    other = energies(probe=["a"] * 16 + ["b"] * 16)
    assert "the runs read different tokens" in energy_sentence(other)
