from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes

from rankscope import plots
from rankscope.errors import WrongSettingError
from rankscope.plots.gallery import gallery
from rankscope.plots.published_lines import STUDY
from rankscope.published import weiss2025
from rankscope.results.columns import EVALUATION_COLUMNS, SUBSPACE_COLUMNS
from rankscope.results.figure_source import FigureSource
from rankscope.results.results import Results, table_of, typed_evaluation, typed_subspaces

TINY = {"q": (96, 96), "down": (96, 384)}


def table(component: str = "weight", unit: str = "step") -> pd.DataFrame:
    """Two runs of the study's tiny model, at three steps."""
    rows = [
        {
            **{"run": run, "step": step, "layer": layer, "role": role, "component": component},
            **{"name": f"{layer}.{role}", "rows": shape[0], "cols": shape[1], "status": "ok"},
            **{"per": 0.95 - step / 4e5, "per_resolved": 0.95 - step / 4e5, "max_rank": 96},
            **{"condition_number": 3.0, "condition_number_status": "ok", "per_gaussian": 0.96},
        }
        for run in ("full", "relora")
        for step in (0, 10000, 20000)
        for layer in range(2)
        for role, shape in TINY.items()
    ]
    found = table_of(rows)
    found.attrs["unit"] = unit
    return found


def grey(ax: Axes) -> list[pd.Series]:
    """The published lines, as value by step."""
    wanted = [line for line in ax.lines if line.get_alpha() and len(line.get_xdata())]
    return [pd.Series(line.get_ydata(), index=np.asarray(line.get_xdata())) for line in wanted]


def legend_of(figure) -> list[str]:  # type: ignore[no-untyped-def]
    legends = [*figure.legends, *(ax.get_legend() for ax in figure.axes)]
    return [text.get_text() for legend in legends if legend for text in legend.get_texts()]


@pytest.mark.parametrize(
    ("draw", "metric"),
    [(plots.per, "per"), (plots.condition_number, "condition_number")],
)
def test_weights_are_drawn_with_the_published_ones_of_their_role_and_shape(draw, metric) -> None:  # type: ignore[no-untyped-def]
    figure = draw(table(), published=True)
    panels = {ax.get_title().split()[0]: ax for ax in figure.axes if ax.get_title()}
    assert grey(panels["q"]) == []
    lines = grey(panels["down"])
    wanted = weiss2025("spectra", scale="tiny").query(
        f"metric == '{metric}' and layers == 'all' and matrix == 'swiglu.w_2'"
    )
    for line, tensor in zip(lines, ("weight", "base_weight"), strict=True):
        truth = wanted[wanted["tensor"] == tensor].set_index("step")["value"]
        pd.testing.assert_series_equal(line, truth, check_names=False)
    texts = [text for text in legend_of(figure) if text.startswith(STUDY)]
    assert texts == [f"{STUDY}: full rank", f"{STUDY}: ReLoRA (without its live adapter)"]


def test_what_is_only_noise_or_of_another_thing_is_not_drawn() -> None:
    assert not grey(plots.per(table()).axes[0])
    adapters = plots.per(table("adapter"), "adapter", published=True)
    assert [t for t in legend_of(adapters) if t.startswith(STUDY)] == [
        f"{STUDY}: ReLoRA (holds rounding noise)"
    ]
    with pytest.raises(WrongSettingError, match="nothing is published of 'condition_number'"):
        plots.condition_number(
            table("adapter"), "adapter", column="condition_number", published=True
        )
    with pytest.raises(WrongSettingError, match="nothing is published"):
        plots.per(table("gradient"), "gradient", published=True)
    other = table().replace({"cols": 384}, 380)
    with pytest.raises(WrongSettingError, match="in these shapes"):
        plots.per(other, published=True)


@pytest.mark.parametrize("unit", ["tokens", "epoch"])
def test_curves_over_steps_are_not_drawn_over_anything_else(unit: str) -> None:
    with pytest.raises(WrongSettingError, match=f"count steps, this table {unit}"):
        plots.per(table(unit=unit), published=True)


def test_scores_are_drawn_with_both_scales() -> None:
    rows = [
        ("a", step, task, group, metric, 0.6, 0.5, 0.7, 90)
        for step in (0, 20000)
        for task, group, metric in (
            ("blimp", "all", "accuracy"),
            ("blimp", "phenomenon:binding", "accuracy"),
            ("paloma", "all", "perplexity"),
            ("novels", "all", "perplexity"),
        )
    ]
    evaluation = pd.DataFrame(rows, columns=list(EVALUATION_COLUMNS))
    figure = plots.performance(evaluation, published=True)
    counts = {ax.get_title(): len(grey(ax)) for ax in figure.axes}
    assert counts == {"blimp": 4, "paloma": 4, "novels": 0}
    assert sum(text.startswith(STUDY) for text in legend_of(figure)) == 4
    phenomena = plots.blimp_phenomena(evaluation, published=True)
    (line, *_), truth = grey(phenomena.axes[0]), weiss2025("blimp", scale="small", model="decoder")
    truth = (
        truth[(truth["group"] == "phenomenon:binding") & (truth["step"] <= 20000)]
        .set_index("step")["value"]
        .sort_index()
    )
    pd.testing.assert_series_equal(line, truth, check_names=False)


def results_of(metrics: pd.DataFrame, evaluation: pd.DataFrame) -> Results:
    """Opened results with these tables."""
    results = Results(Path("results"))
    tables = {"metrics": metrics, "evaluation": evaluation}
    vars(results).update(tables | {"subspaces": typed_subspaces(no_rows(SUBSPACE_COLUMNS))})
    return results


def no_rows(columns: Collection[str]) -> pd.DataFrame:
    return pd.DataFrame(columns=list(columns))


def test_the_gallery_draws_over_published_curves_where_there_are_any() -> None:
    """The other figures are those without, and results of other matrices are a wrong request."""
    opened = results_of(table(), typed_evaluation(no_rows(EVALUATION_COLUMNS)))
    only = ["per-weights", "tail-index-weights", "performance"]
    plain, over = gallery(opened, only=only), gallery(opened, only=only, published=True)
    assert list(over) == only
    assert over["tail-index-weights"] == plain["tail-index-weights"]
    figures = {
        name: chosen["per-weights"](opened) for name, chosen in (("plain", plain), ("over", over))
    }
    drawn = {name: sum(map(len, map(grey, figure.axes))) > 0 for name, figure in figures.items()}
    assert drawn == {"plain": False, "over": True}
    caption = over["per-weights"].described(
        figures["over"], "per-weights", opened, FigureSource({}, {}, {}, {})
    )
    assert f"{STUDY}: full rank" in caption.description
    other = results_of(table().replace({"cols": 384}, 380), opened.evaluation)
    with pytest.raises(WrongSettingError, match="leave out `published`"):
        gallery(other, published=True)
    blimp = [("a", 0, "blimp", "all", "accuracy", 0.5, 0.4, 0.6, 90)]
    scored = results_of(other.metrics, pd.DataFrame(blimp, columns=list(EVALUATION_COLUMNS)))
    assert "performance" in gallery(scored, published=True)
