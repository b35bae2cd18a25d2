from __future__ import annotations

from dataclasses import replace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from rankscope import plots
from rankscope.errors import WrongSettingError
from rankscope.plots.half_panels import DASHES
from rankscope.statistics.row_choice import most_layers
from tests.plots.drawn import legend_texts

STEPS = (0, 10, 20)


def deep(*layers: int, run: str = "a") -> pd.DataFrame:
    """Weights of one run whose PER and κ are known functions of layer and step."""
    rows = [
        {
            "run": run,
            "step": step,
            "layer": layer,
            "per": value,
            "condition_number": 10 ** (5 * value),
        }
        for step in STEPS
        for layer in layers
        for value in [(1 + layer**2 + step) / 100]
    ]
    fixed = {"component": "weight", "role": "q", "head": pd.NA, "expert": pd.NA, "name": "w"}
    fixed |= {"rows": 8, "cols": 8, "max_rank": 8, "noise_share": 0.0, "numerical_rank": 8}
    table = pd.DataFrame(rows).assign(condition_number_status="ok", **fixed)
    return table.assign(layer=table["layer"].astype("Int64"))


def heights(table: pd.DataFrame, column: str) -> dict[str, list[float]]:
    """The line of each half, by its dashes."""
    ax = plots.layer_halves(table, column, ax=plt.figure().add_subplot())
    lines = [line for line in ax.lines if len(line.get_xdata()) and line.get_linestyle() != "None"]
    return {
        half: list(map(float, line.get_ydata())) for half, line in zip(DASHES, lines, strict=True)
    }


@pytest.mark.parametrize(
    ("layers", "first", "second"),
    [
        ((0, 1, 2, 3), (0, 1), (2, 3)),
        ((0, 1, 2, 3, 4), (0, 1), (3, 4)),
        ((3, 5), (3,), (5,)),
    ],
)
def test_each_half_is_summarised_over_its_own_layers(
    layers: tuple[int, ...], first: tuple[int, ...], second: tuple[int, ...]
) -> None:
    found = {column: heights(deep(*layers), column) for column in ("per", "condition_number")}
    for half, own in (("first", first), ("second", second)):
        values = np.array([[(1 + layer**2 + step) / 100 for layer in own] for step in STEPS])
        assert found["per"][half] == pytest.approx(values.mean(axis=1))
        medians = np.quantile(5 * values, 0.5, axis=1)
        assert np.log10(found["condition_number"][half]) == pytest.approx(medians)


def test_the_legend_says_which_layers_and_of_which_run_if_they_differ() -> None:
    ax = plots.layer_halves(deep(0, 1, 2, 3))
    assert legend_texts(ax)[:3] == ["a", "first half: layers 0–1", "second half: layers 2–3"]
    both = pd.concat([deep(0, 1, 2, 3), deep(0, 1, run="b")])
    texts = legend_texts(plots.layer_halves(both, ax=plt.figure().add_subplot()))
    assert "first half: layers 0–1 (a), layer 0 (b)" in texts


def test_replicates_are_summarised_by_half() -> None:
    runs = pd.concat([deep(0, 1, run="a-1"), deep(0, 1, run="a-2").assign(per=0.5)])
    ax = plots.layer_halves(runs, group="(a)-.*")
    lines = [line for line in ax.lines if len(line.get_xdata()) and line.get_linestyle() != "None"]
    assert float(lines[0].get_ydata()[0]) == pytest.approx((0.01 + 0.5) / 2)
    assert "min to max over 2 runs" in legend_texts(ax)


def test_one_layer_has_no_halves() -> None:
    with pytest.raises(WrongSettingError, match="two layers or more"):
        plots.layer_halves(deep(7))


def test_the_most_layers_are_those_of_the_deepest_run() -> None:
    both = pd.concat([deep(0, 1, 5), deep(0, 1, 2, 3, run="b")])
    assert most_layers(both, "weight") == 4 and most_layers(both, "update") == 0


def test_halves_are_drawn_where_lines_tell_them_apart(results: Any) -> None:
    figure, table = plots.FIGURES["halves-per-weights"], deep(0, 1, 2, 3)
    assert figure.has_data(replace(results, metrics=table))
    assert not figure.has_data(replace(results, metrics=table[table["step"] == 10]))
    assert not figure.has_data(replace(results, metrics=deep(0, 1, 2)))
