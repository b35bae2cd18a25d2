from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from rankscope import plots
from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.results.results import table_of
from rankscope.statistics.depth import layer_means

LAYERS, STEPS = 6, (0, 10, 20, 30, 40, 50, 100, 200, 1000)


@pytest.fixture
def table() -> pd.DataFrame:
    """PER and κ by layer of two roles and two runs, with a trend from step 20 on."""
    rng = np.random.default_rng(3)
    rows = [
        {"run": run, "step": step, "layer": layer, "role": role, "component": "weight"}
        | {"per": 0.8 - 0.02 * layer * (step > 10) + 0.01 * rng.normal(), "head": pd.NA}
        | {"condition_number_90": 10.0 ** (1 + 0.1 * layer), "expert": pd.NA, "window": None}
        for run in ("full", "relora")
        for step in STEPS
        for layer in range(LAYERS)
        for role in ("q", "up")
    ]
    return pd.DataFrame(rows).astype({"layer": "Int64", "head": "Int64", "expert": "Int64"})


def test_a_profile_has_the_mean_of_each_layer_at_a_few_steps(table: pd.DataFrame) -> None:
    ax = plots.layer_profile(table, run="full")
    drawn = (0, 200, 1000)  # the nearest to six even distances
    assert len(ax.lines) == len(drawn)
    for line, step in zip(ax.lines, drawn, strict=True):
        rows = table[(table["run"] == "full") & (table["step"] == step)]
        means = rows.groupby("layer")["per"].mean()
        assert list(line.get_ydata()) == pytest.approx(means.tolist())
    shades = [sum(plt.matplotlib.colors.to_rgb(line.get_color())) for line in ax.lines]
    assert shades == sorted(shades, reverse=True)  # later is darker, in greyscale too


def test_steps_may_be_chosen_and_those_that_are_not_there_are_answered(
    table: pd.DataFrame,
) -> None:
    assert len(plots.layer_profile(table, run="full", steps=[0, 10]).lines) == 2
    with pytest.raises(WrongSettingError, match="no step 5 in `steps`: choose from 0, 10, 20"):
        plots.layer_profile(table, run="full", steps=[5])


def test_the_slope_is_that_of_scipy_and_hollow_where_zero_is_within(table: pd.DataFrame) -> None:
    ax = plots.depth_slope(table, role="q")
    slopes, filled, hollow = [line for line in ax.lines if len(line.get_xdata())][:3]
    lines = [
        stats.theilslopes(rows["per"], rows["layer"].astype(float))
        for _, rows in table.query("run == 'full' and role == 'q'").groupby("step")
    ]
    assert list(slopes.get_ydata()) == pytest.approx([line.slope for line in lines])
    with_zero = [s for s, x in zip(STEPS, lines, strict=True) if x.low_slope <= 0 <= x.high_slope]
    assert list(hollow.get_xdata()) == with_zero and 0 < len(with_zero) < len(STEPS)
    assert hollow.get_markerfacecolor() == "white" != filled.get_markerfacecolor()
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    ends = [end for line in lines for end in (line.low_slope, line.high_slope)]
    assert (band.min(), band.max()) == pytest.approx((min(ends), max(ends)))
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "no trend; 1 interval in 20 excludes 0 by chance" in texts


def test_what_spans_decades_is_drawn_by_logarithms(table: pd.DataFrame) -> None:
    ax = plots.layer_profile(table, "condition_number_90", run="full", role="q")
    assert ax.get_yscale() == "log"
    assert list(ax.lines[0].get_ydata()) == pytest.approx([10 ** (1 + 0.1 * i) for i in range(6)])
    slope = plots.depth_slope(table, "condition_number_90", ax=plt.figure().add_subplot())
    assert slope.get_ylabel().startswith(r"slope of $\log_{10}$ $\kappa_{90}$")
    assert slope.lines[1].get_ydata()[0] == pytest.approx(0.1)


def test_a_mean_over_roles_is_of_the_same_roles_in_every_layer(table: pd.DataFrame) -> None:
    lacks = table["role"].eq("up") & table["layer"].eq(2)
    ax = plots.layer_profile(table[~lacks], run="full")
    q = table.query("run == 'full' and step == 0 and role == 'q'")
    assert list(ax.lines[0].get_ydata()) == pytest.approx(q["per"].tolist())
    one = table.query("run == 'full' and step == 0")
    unknown = one.assign(per=one["per"].mask(one["role"].eq("up") & one["layer"].eq(2)))
    means = layer_means(unknown, "per")[0]
    assert list(means.index[means.isna()]) == [2]
    none = table[table["role"].eq("q") == table["layer"].lt(3)]
    with pytest.raises(RankscopeError, match="no role is in every layer: choose one as `role`"):
        plots.layer_profile(none)


def test_a_figure_has_a_row_for_every_run_or_role(table: pd.DataFrame) -> None:
    figure = plots.depth_profiles(table)
    names = [text.get_text() for ax in figure.axes for text in ax.texts]
    assert names == ["full", "relora"]
    assert [ax.get_title() for ax in figure.axes[:2]] == ["PER", "slope of PER per layer"]
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts[:2] == ["each layer: mean over roles", "95 % interval over layers (Theil–Sen)"]
    roles = plots.depth_profiles(table[table["run"] == "full"], hue="role")
    assert [text.get_text() for ax in roles.axes for text in ax.texts] == ["q", "up"]


def test_kinds_of_windows_are_never_one_line(table: pd.DataFrame) -> None:
    parts = table.assign(window=np.where(table["step"] < 50, "cycle", "within"))
    ax = plots.depth_slope(parts, role="q")
    lengths = [len(line.get_xdata()) for line in ax.lines if line.get_linestyle() == "-"]
    assert {n for n in lengths if n} == {5, 4}


@pytest.mark.parametrize(
    ("change", "hue", "error", "message"),
    [
        ({"layer": 1}, "run", RankscopeError, "in fewer than 3 layers"),
        ({"layer": pd.NA}, "run", RankscopeError, "belongs to a layer"),
        ({}, "layer", WrongSettingError, "choose another column as `hue`"),
    ],
)
def test_a_slope_needs_layers(
    table: pd.DataFrame, change: dict[str, object], hue: str, error: type, message: str
) -> None:
    with pytest.raises(error, match=message):
        plots.depth_slope(table.assign(**change), hue=hue)


def test_replicates_have_the_mean_of_their_slopes_with_students_interval(
    table: pd.DataFrame,
) -> None:
    ax = plots.depth_slope(table, role="q", group="l")  # both names have an "l"
    slopes = [
        [
            stats.theilslopes(rows["per"], rows["layer"].astype(float)).slope
            for _, rows in table[(table["run"] == run) & (table["role"] == "q")].groupby("step")
        ]
        for run in ("full", "relora")
    ]
    line = next(line for line in ax.lines if len(line.get_xdata()))
    assert list(line.get_ydata()) == pytest.approx(np.mean(slopes, axis=0).tolist())
    ends = [stats.ttest_1samp(pair, 0).confidence_interval() for pair in zip(*slopes, strict=True)]
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert band.min() == pytest.approx(min(low for low, _ in ends))
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert "95 % interval over runs (Student)" in texts
    assert len(plots.depth_profiles(table, group="l").axes) == 3
    alone = plots.depth_slope(table, role="q", group="full|relora", ax=plt.figure().add_subplot())
    hollow = [line for line in alone.lines if line.get_markerfacecolor() == "white"]
    assert len(hollow[0].get_xdata()) == len(STEPS)
    assert "0 within the interval, or no interval" in alone.get_legend_handles_labels()[1]


def test_a_metric_of_ones_own_is_drawn_and_an_unknown_one_answered(table: pd.DataFrame) -> None:
    own = table.assign(mine=2 * table["per"])
    assert plots.layer_profile(own, "mine", run="full").get_ylabel() == "mine"
    with pytest.raises(WrongSettingError, match="unknown metric 'pre'"):
        plots.depth_profiles(table, "pre")
    with pytest.raises(WrongSettingError, match="unknown metric 'pre'"):
        plots.layer_profile(table, "pre", run="full")


@pytest.mark.slow
def test_labels_of_ticks_are_within_the_figure_where_its_height_decides_how_many_fit() -> None:
    rows = [
        {"run": run, "step": step, "layer": layer, "role": "q", "component": "weight"}
        | {"name": "q", "per": 0.9 - 0.55 * step / 100 * (1 - layer / 9)}
        for run in "abc"
        for step in (0, 50, 100)
        for layer in range(4)
    ]
    with plots.paper_style("acl-text"):
        figure = plots.depth_profiles(table_of(rows))
        figure.draw_without_rendering()
    assert min(ax.get_tightbbox().x0 for ax in figure.axes) >= 0
