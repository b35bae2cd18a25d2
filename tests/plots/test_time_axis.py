from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from rankscope import plots
from rankscope.plots.panel import GREY
from rankscope.plots.style import series_styles
from tests.plots.drawn import legend_texts, restart_ticks

MERGES = list(range(100, 1000, 100))


def with_merges(table: pd.DataFrame, **steps: list[int]) -> pd.DataFrame:
    """Weights of copies of the run ``full`` with recorded merges at these steps."""
    full = table.query("run == 'full' and role == 'q' and component == 'weight'")
    parts = []
    for run, of_run in steps.items():
        merges = full.head(len(of_run)).assign(step=of_run, component="merge")
        parts += [part.assign(run=run) for part in (full, merges)]
    return pd.concat(parts, ignore_index=True)


def drawn(table: pd.DataFrame) -> Axes:
    return plots.metric(table, "per", role="q", ax=plt.figure().add_subplot())


def test_restarts_have_the_colour_of_the_run_that_restarts(table: pd.DataFrame) -> None:
    ax = drawn(table)
    relora = series_styles(["full", "relora"])["relora"].color.lower()
    assert restart_ticks(ax) == [(step, relora) for step in MERGES]
    assert legend_texts(ax).count("restart") == 1


def test_a_run_without_merges_has_no_restarts(table: pd.DataFrame) -> None:
    ax = drawn(table[table["run"] == "full"])
    assert restart_ticks(ax) == [] and "restart" not in legend_texts(ax)


def test_runs_that_restart_alike_share_grey_ticks_and_others_have_their_own(
    table: pd.DataFrame,
) -> None:
    ticks = restart_ticks(drawn(with_merges(table, a=[200, 400], b=[200, 400], c=[300])))
    assert [step for step, _ in ticks] == [200, 400, 300]
    assert ticks[0][1] == ticks[1][1] == "#595959" and float(GREY) == pytest.approx(
        0x59 / 255, abs=2e-3
    )
    assert ticks[2][1] == series_styles("abc")["c"].color.lower()


@pytest.mark.parametrize(
    ("steps", "note"),
    [
        (
            {name: [100 + 10 * i] for i, name in enumerate("abcd")},
            "restarts not marked: 4 schedules",
        ),
        ({"a": [*range(1, 300)]}, "restarts not marked: too many"),
    ],
)
def test_restarts_that_could_not_be_read_are_not_marked(
    table: pd.DataFrame, steps: dict[str, list[int]], note: str
) -> None:
    first = table.query("run == 'full' and role == 'q' and component == 'weight'").head(1)
    own = with_merges(table, **{name: of[:20] for name, of in steps.items()})
    more = [
        first.assign(run=n, step=s, component="merge") for n, of in steps.items() for s in of[20:]
    ]
    ax = drawn(pd.concat([own, *more]))
    assert note in legend_texts(ax) and restart_ticks(ax) == []


def test_restarts_beyond_what_is_drawn_do_not_stretch_the_axis(table: pd.DataFrame) -> None:
    early = table[(table["step"] <= 300) | (table["component"] == "merge")]
    ax = drawn(early)
    assert [step for step, _ in restart_ticks(ax)] == [100, 200, 300]
    assert ax.get_xlim()[1] < 350


def test_a_map_has_its_restarts_on_top(table: pd.DataFrame) -> None:
    figure = plots.heatmaps(table)
    full, relora = figure.axes[:2]
    assert restart_ticks(full) == [] and [s for s, _ in restart_ticks(relora)] == MERGES
    assert legend_texts(figure) == ["restart"]


def test_steps_are_whole_numbers() -> None:
    table = pd.DataFrame({"run": "a", "step": [0, 1, 2], "loss": [3.0, 2.0, 1.0]})
    ticks = plots.loss(table, ax=plt.figure().add_subplot()).get_xticks()
    assert (np.asarray(ticks) % 1 == 0).all()


def places(ax: Axes, steps: list[float]) -> list[float]:
    """Where steps are, as shares of the width of the axes."""
    ends = ax.transData.transform([(step, 1) for step in (*steps, *ax.get_xlim())])[:, 0]
    return list((ends[:-2] - ends[-2]) / (ends[-1] - ends[-2]))


def test_log_steps_keep_step_0_in_view_and_equal_ratios_at_equal_distances(
    table: pd.DataFrame,
) -> None:
    figure = plots.log_steps(plots.per(table))
    figure.draw_without_rendering()
    ax = figure.axes[0]
    zero, first, double, quadruple, last = places(ax, [0, 100, 200, 400, 900])
    assert 0 < zero < first and last < 1
    assert quadruple - double == pytest.approx(double - first)
    # Half a decade for the linear part, as much as a factor of √10.
    assert first - zero == pytest.approx((double - first) * 0.5 / np.log10(2), rel=0.15)
    texts = [text.get_text() for text in figure.axes[-2].get_xticklabels()]
    assert texts == ["0", "100", "200", "500"]
    assert figure.get_supxlabel() == "step (log scale from 100 on)"
    assert plots.log_steps(figure).get_supxlabel() == "step (log scale from 100 on)"


def test_without_step_0_the_whole_axis_is_logarithmic(table: pd.DataFrame) -> None:
    ax = drawn(table[table["step"] > 0])
    plots.log_steps(ax.get_figure(root=True))
    first, double, quadruple = places(ax, [100, 200, 400])
    assert (ax.get_xscale(), ax.get_xlabel()) == ("log", "step (log scale)")
    assert first > 0 and quadruple - double == pytest.approx(double - first)


def test_axes_of_something_else_stay_linear(results: object) -> None:
    figure = plots.log_steps(plots.depth_profiles(results.metrics))  # type: ignore[attr-defined]
    scales = {ax.get_xlabel(): ax.get_xscale() for ax in figure.axes if ax.get_xlabel()}
    assert scales.pop("layer") == "linear"
    assert scales.pop("step (log scale from 100 on)") == "symlog"


def kappa_of_one(table: pd.DataFrame, spread: float) -> Axes:
    rows = table.query("component == 'weight' and role == 'q' and run == 'full'")
    rows = rows.assign(condition_number_r=1 + spread * np.linspace(0, 1, len(rows)))
    return plots.metric(rows, "condition_number_r", ax=plt.figure().add_subplot())


@pytest.mark.parametrize(("spread", "least", "most"), [(1e-6, 1.05, 1.06), (0.5, 1.3, 1.6)])
def test_a_log_axis_does_not_blow_up_noise_and_labels_no_two_ticks_alike(
    table: pd.DataFrame, spread: float, least: float, most: float
) -> None:
    ax = kappa_of_one(table, spread)
    ax.figure.draw_without_rendering()
    low, high = ax.get_ylim()
    assert least <= high / low <= most
    inside = [
        text.get_text()
        for tick, text in zip(ax.get_yticks(), ax.get_yticklabels(), strict=True)
        if low <= tick <= high
    ]
    assert len(inside) == len(set(inside)) >= 2


@pytest.mark.parametrize(("error", "span"), [(1e-9, 1e-3), (0.05, 0.2)])
def test_a_linear_axis_spans_several_errors(table: pd.DataFrame, error: float, span: float) -> None:
    rows = table.query("component == 'weight' and role == 'q' and run == 'full'")
    values = 1 - 1e-9 * np.arange(len(rows))
    ax = drawn(rows.assign(per=values, per_resolved=values, per_error=error))
    low, high = ax.get_ylim()
    assert span <= high - low <= 1.2 * span


def test_a_panel_that_needs_more_of_a_shared_axis_has_it(table: pd.DataFrame) -> None:
    rows = table.query("component == 'weight' and run == 'full'").copy()
    rows["per"] = rows["per"].where(rows["role"] == "q", 0.5)
    figure = plots.per(rows)
    low, high = figure.axes[1].get_ylim()
    own = rows.loc[rows["role"] == "q", "per"]
    assert low <= own.min() and high >= own.max()
