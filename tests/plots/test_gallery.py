from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.text import Text

import rankscope as rs
from rankscope import plots
from rankscope.errors import WrongSettingError
from rankscope.plots.gallery import gallery, selected
from rankscope.plots.style import series_styles
from rankscope.results.representation_tables import (
    typed_input_energies,
    typed_representations,
    typed_similarities,
)
from rankscope.statistics.replicates import RUN_GROUP
from tests.analysis.series import analysed
from tests.conftest import random_factors, write_adapter
from tests.plots.conftest import NO_ROWS, InMemory

SCRIPTS = Path(__file__).parents[2] / "figures"


def tick_sizes(figure: Figure) -> set[float]:
    axes = [ax for ax in figure.axes if ax.axison]
    labels = [label for ax in axes for label in (*ax.get_xticklabels(), *ax.get_yticklabels())]
    return {label.get_fontsize() for label in labels if label.get_text()}


@pytest.mark.slow
def test_every_figure_looks_the_same_wherever_it_is_made_and_drawn(results: Any) -> None:
    with plots.paper_style("icml-text"):
        size = tuple(mpl.rcParams["figure.figsize"])
    with plt.rc_context({"font.size": 20, "xtick.labelsize": 20, "figure.figsize": size}):
        for name, draw in plots.FIGURES.items():
            figure = draw(results)
            missing = ("gradients", "ov", "qk", "adapters", "cumulative-updates", "by-head", "rate")
            missing += ("against-performance",)  # two runs are no relation
            is_missing = name.endswith(missing) or name.startswith("halves")
            is_missing |= "features" in name  # see test_feature_figures.py
            is_missing |= name.startswith("input-energy")  # see test_energy_lines.py
            assert (figure is None) is is_missing
            if figure is not None:
                figure.draw_without_rendering()
                assert tick_sizes(figure) == {7}
                assert figure.get_figwidth() == plots.WIDTHS["icml-text"]
    assert not plt.get_fignums()


def test_results_without_rows_give_no_figure(results: Any) -> None:
    empty = replace(
        results,
        metrics=results.metrics.iloc[:0],
        training=pd.DataFrame(),
        evaluation=results.evaluation.iloc[:0],
        subspaces=results.subspaces.iloc[:0],
    )
    assert [draw(empty) for draw in plots.FIGURES.values()] == [None] * len(plots.FIGURES)


def test_every_script_draws_what_the_gallery_has_too() -> None:
    assert {path.stem for path in SCRIPTS.glob("*.py")} <= set(plots.FIGURES)


def test_a_component_that_has_one_figure_by_default_has_all_when_asked(results: Any) -> None:
    assert [name for name in gallery(results) if "merges" in name] == ["per-merges"]
    asked = gallery(results, components=["merge"])
    assert {*asked} == {
        "per-merges", "condition-numbers-merges", "merge-spectra", "heatmap-per-merges",
        "merge-alignment", "merge-histograms", "halves-per-merges",
        "halves-condition-numbers-merges"
    }  # fmt: skip
    assert asked["per-merges"](results).get_supylabel().startswith("PER")


@pytest.mark.slow
def test_adapters_beside_weights_have_one_figure_and_all_when_asked(results: Any) -> None:
    assert gallery(results)["heatmap-per-adapters"](results) is None
    for asked in ({}, {"components": ["adapter"]}, {"only": ["per-adapters"]}):
        assert gallery(results, **asked)["per-adapters"](results) is not None


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            {"only": ["per-wieghts"]},
            "unknown figure 'per-wieghts': choose from per-weights,",
        ),
        ({"components": ["ov"]}, "unknown component 'ov': choose from weight, update"),
    ],
)
def test_what_is_not_there_is_answered_with_what_is(
    results: Any, asked: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(WrongSettingError, match=message):
        gallery(results, **asked)


def test_runs_and_roles_can_be_selected(results: Any) -> None:
    chosen = selected(results, runs=["relora"], roles=["q", "v"])
    assert {*chosen.metrics["run"]} == {*chosen.training["run"]} == {"relora"}
    assert {*chosen.metrics["role"]} == {"q", "v"}
    assert {*chosen.subspaces["run"]} == {"relora"} and {*chosen.subspaces["role"]} == {"q"}
    assert {*results.metrics["run"]} == {"full", "relora"}
    with pytest.raises(WrongSettingError, match="unknown run 'ful': choose from full, relora"):
        selected(results, runs=["ful"])
    with pytest.raises(WrongSettingError, match="unknown role 'w2': choose from q, k"):
        selected(results, roles=["w2"])


def test_the_public_names_are_there_and_nothing_else() -> None:
    assert set(plots.__all__) == set(dir(plots))
    assert all(getattr(plots, name) is not None for name in plots.__all__)
    with pytest.raises(AttributeError, match="no attribute 'pre'"):
        plots.pre  # noqa: B018


def test_no_module_takes_the_place_of_a_function_when_it_is_imported() -> None:
    assert not {*plots.__all__} & {path.stem for path in Path(plots.__file__).parent.glob("*.py")}


def test_importing_plots_does_not_import_matplotlib() -> None:
    code = "import sys, rankscope.plots; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


ADAPTERS = {"per-adapters", "condition-numbers-adapters", "heatmap-per-adapters"}


@dataclass(frozen=True)
class Tables(InMemory):
    metrics: pd.DataFrame
    training: pd.DataFrame
    evaluation: pd.DataFrame
    subspaces: pd.DataFrame = field(default_factory=pd.DataFrame)
    representations: pd.DataFrame = field(default_factory=lambda: typed_representations(NO_ROWS))
    similarities: pd.DataFrame = field(default_factory=lambda: typed_similarities(NO_ROWS))
    input_energies: pd.DataFrame = field(default_factory=lambda: typed_input_energies(NO_ROWS))


@pytest.fixture
def alone(tmp_path: Path, rng: np.random.Generator) -> Path:
    for step in (1, 2, 3):
        write_adapter(tmp_path / "run" / f"checkpoint-{step}", random_factors(rng), scale=2.0)
    analysed(tmp_path / "run", out=tmp_path / "out")
    return tmp_path / "out"


def drawn(results: Any, names: Collection[str] = tuple(plots.FIGURES)) -> dict[str, Any]:
    figures = {name: plots.FIGURES[name](results) for name in names}
    return {name: figure for name, figure in figures.items() if figure is not None}


@pytest.mark.slow
def test_adapters_alone_have_their_figures(alone: Path) -> None:
    found = drawn(rs.open_results(alone))
    assert found.keys() >= ADAPTERS and "per-weights" not in found
    titles = [ax.get_title().split()[0] for ax in found["per-adapters"].axes if ax.axison]
    assert titles == ["q", "k", "v", "o", "gate", "up", "down"]


@pytest.mark.slow
def test_runs_of_adapters_alone_are_drawn_beside_others(results: Any) -> None:
    table = results.metrics
    kept = {"full": ["weight"], "relora": ["adapter"]}
    table = pd.concat(
        table[(table["run"] == run) & table["component"].isin(parts)] for run, parts in kept.items()
    )
    found = drawn(Tables(table, pd.DataFrame(), results.evaluation.iloc[:0]))
    assert found.keys() >= {*ADAPTERS, "per-weights"}
    titles = {ax.get_title() for ax in found["heatmap-per-adapters"].axes}
    assert "relora" in titles and "full" not in titles


def test_beside_weights_adapters_need_none(results: Any) -> None:
    assert not drawn(results, ADAPTERS)


@pytest.mark.slow
def test_cumulative_updates_have_figures_where_they_were_measured(results: Any) -> None:
    table = results.metrics
    updates = table[table["component"] == "update"].assign(component="cumulative_update")
    found = drawn(Tables(updates, pd.DataFrame(), results.evaluation.iloc[:0]))
    assert found.keys() == {"per-cumulative-updates", "heatmap-per-cumulative-updates"}


@pytest.mark.parametrize("unit", ["epoch", "step or epoch"])
@pytest.mark.slow
def test_axes_of_steps_say_what_they_count(alone: Path, unit: str) -> None:
    record = alone / "analysis.json"
    units = unit.split(" or ")
    runs = ", ".join(f'{{"name": "{one}", "path": "{one}", "unit": "{one}"}}' for one in units)
    record.write_text(f'{{"runs": [{runs}]}}')
    results = rs.open_results(alone)
    assert results.unit == unit
    for name, figure in drawn(results).items():
        assert figure.get_supxlabel() == unit or name.endswith(("spectra", "histograms"))
    ax = plots.metric(results.metrics, "per", component="adapter")
    assert ax.get_xlabel() == unit
    record.write_text("{}")
    assert rs.open_results(alone).unit == "step"


def test_a_selected_run_keeps_its_colour_in_every_table(results: Any) -> None:
    chosen = selected(results, runs=["relora"])
    for drawn in (
        plots.per(chosen.metrics),
        plots.losses(chosen.training),
        plots.performance(chosen.evaluation),
        plots.FIGURES["rank-and-performance"](chosen),
    ):
        assert drawn is not None
        (handle,) = [
            entry
            for legend in drawn.findobj(Legend)
            for entry, text in zip(legend.legend_handles, legend.get_texts(), strict=True)
            if text.get_text() == "relora"
        ]
        assert handle.get_color() == series_styles(["full", "relora"])["relora"].color


@pytest.mark.parametrize("name", ["loss", "per-weights", "heatmap-per-weights", "merged-rank",
                                  "performance"])  # fmt: skip
def test_a_figure_of_groups_says_how_many_runs_they_are_of(results: Any, name: str) -> None:
    figure = plots.FIGURES[name](selected(results, group="(?:full|rel)o?"))
    assert figure is not None
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert any("1 run" in text for text in texts)


def test_a_pattern_may_match_runs_of_one_table_only(results: Any) -> None:
    results = replace(results, evaluation=results.evaluation[results.evaluation["run"] == "full"])
    chosen = selected(results, group="(re)lora")
    assert {*chosen.metrics[RUN_GROUP]} == {"re", "full"}
    assert {*chosen.evaluation[RUN_GROUP]} == {"full"}


def test_every_component_that_was_measured_has_a_figure(results: Any) -> None:
    drawn = {figure.component for figure in gallery(results).values() if figure.has_data(results)}
    assert drawn >= {*results.metrics["component"]}
    assert "per-merges" in gallery(results) and "per-merges" not in plots.FIGURES
