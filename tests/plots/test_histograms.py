from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.patches import StepPatch

from rankscope import plots
from rankscope.errors import RankscopeError
from rankscope.plots.decay import PALE
from rankscope.statistics.spectra_rows import bin_edges
from tests.plots.drawn import legend_texts


def spectra(run: str, *matrices: list[float], floor: float = 1e-6) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"run": run, "step": 9, "layer": layer, "role": "q", "component": "update",
             "head": pd.NA, "name": f"w{layer}", "index": i, "singular_value": s,
             "lower": s, "upper": s, "noise_floor": floor}
            for layer, values in enumerate(matrices)
            for i, s in enumerate(values)
        ]
    )  # fmt: skip


def stairs(ax: Axes) -> tuple[list[StepPatch], list[StepPatch]]:
    """Outlines of what is certain, and of what may be noise."""
    outlines = [p for p in ax.patches if isinstance(p, StepPatch) and not p.get_fill()]
    return [p for p in outlines if p.get_alpha() != PALE], [
        p for p in outlines if p.get_alpha() == PALE
    ]


def area(patch: StepPatch) -> float:
    return float(np.sum(patch.get_data().values))


def test_heights_are_values_per_matrix_in_their_bins(rng: np.random.Generator) -> None:
    matrices = [[float(s) for s in np.exp(rng.normal(size=40))] for _ in range(3)]
    ax = plots.histogram(spectra("a", *matrices))
    (outline,), doubtful = stairs(ax)
    heights, edges, _ = outline.get_data()
    every = [s for values in matrices for s in values]
    for height, low, high in zip(heights, edges[:-1], edges[1:], strict=True):
        assert high / low == pytest.approx(10**0.1)
        assert height == pytest.approx(sum(low <= s < high for s in every) / 3)
    assert area(outline) == pytest.approx(40) and not doubtful


def test_a_low_rank_matrix_has_the_area_of_its_rank_beside_a_full_one() -> None:
    both = pd.concat([spectra("full", [0.5] * 60, [0.25] * 60), spectra("lora", [3.0, 2.0])])
    certain, _ = stairs(plots.histogram(both))
    assert [area(outline) for outline in certain] == pytest.approx([60, 2])


def test_values_below_their_own_floor_are_pale_and_far_ones_are_left_out() -> None:
    doubt = spectra("a", [1.0, 0.5, 0.02, 1e-9], floor=0.1)
    sure = spectra("b", [0.02], floor=1e-3)
    ax = plots.histogram(pd.concat([doubt, sure]))
    certain, pale = stairs(ax)
    assert [area(p) for p in certain] == [2, 1] and [area(p) for p in pale] == [1]
    assert {"below the noise floor (may be rounding alone)"} < set(legend_texts(ax))
    assert "smaller values, which are all noise, are left out" in legend_texts(ax)


def test_a_zero_matrix_counts_among_the_matrices() -> None:
    (outline,), _ = stairs(plots.histogram(spectra("a", [1.0, 1.0], [0.0, 0.0])))
    assert area(outline) == 1
    with pytest.raises(RankscopeError, match="no singular value is positive"):
        plots.histogram(spectra("a", [0.0]), ax=plt.figure().add_subplot())


def test_replicates_count_alike_however_many_matrices_they_have() -> None:
    runs = pd.concat([spectra("a-1", [1.0] * 4), spectra("a-2", [1.0] * 2, [1.0] * 2, [1.0] * 2)])
    (outline,), _ = stairs(plots.histogram(runs, group="(a)-.*"))
    assert area(outline) == pytest.approx((4 + 2) / 2)


@pytest.mark.parametrize("high", [1.0, 10.0, 0.999, 3.1])
def test_the_greatest_value_is_in_the_last_bin(high: float) -> None:
    edges = bin_edges(0.01, high)
    assert edges[0] <= 0.01 and edges[-2] <= high * (1 + 1e-12) and high < edges[-1]
