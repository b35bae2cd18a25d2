"""What a figure takes of a table's file is enough: of the whole table it is the same figure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import Collection
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.text import Text

import rankscope as rs
from rankscope.errors import RankscopeError
from rankscope.plots.gallery import FIGURES, selected
from rankscope.plots.gallery_figure import GalleryFigure, with_tables
from rankscope.results.columns import COLUMNS, METRICS_FILE, TEXT, WHOLE
from rankscope.results.parquet_tables import ParquetRows
from rankscope.results.results import Results
from rankscope.results.typed_columns import Columns
from rankscope.statistics.replicates import RUN_GROUP
from tests.analysis.series import analysed
from tests.plots.conftest import evaluation_of_run, training_of_run
from tests.plots.made_features import representations

STEPS = (0, 100, 200, 300)
RUNS = ("full-0", "full-1", "relora-0", "relora-1", "lora-0")
COMPONENTS = ("weight", "update", "adapter", "merge", "merged_total", "ov")
WINDOWS = ("cycle", "across", None)
# What takes other tables alone, stored spectra, or what figures of another component take.
SKIPPED = (
    *("spectra", "histograms", "gradients", "ov", "qk", "cumulative-updates"),
    *("-features", "blimp-phenomena", "halves-condition-numbers-updates"),
    *("heatmap-per-updates", "heatmap-per-adapters", "halves-per-updates"),
)


def made_rows() -> Iterator[dict[str, Any]]:
    """Rows in which every number says something else, so that none can stand for another."""
    rng = np.random.default_rng(3)
    for run, step, layer, component in product(RUNS, STEPS, range(4), COMPONENTS):
        if run == "lora-0" and component not in ("adapter", "update"):
            continue
        if "full" in run and component in ("adapter", "merge", "merged_total"):
            continue
        rank = 4 + (layer + step) // 200 if component in ("adapter", "merge", "update") else 12
        numbers = {name: rng.uniform(0.3, 0.9) for name in COLUMNS if name not in TEXT}
        yield {
            **numbers,
            **dict.fromkeys(WHOLE, 3),
            **dict.fromkeys(TEXT, "ok"),
            **{"run": run, "step": step, "layer": layer, "component": component, "role": "o"},
            **{"name": f"layers.{layer}.o", "rows": 16, "cols": 12, "max_rank": rank},
            **{"head": layer % 2 if component == "ov" else None, "expert": None},
            "numerical_rank": rank - int(rng.integers(3)),
            "condition_number_status": ("ok", "lower-bound")[int(rng.integers(2))],
            "per_error": 10.0 ** rng.uniform(-3, -1),
            "noise_share": 10.0 ** rng.uniform(-3, 0),
            "window": WINDOWS[int(rng.integers(3))] if component == "update" else None,
        }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("made")
    with (path / METRICS_FILE).open("wb") as file:
        written = ParquetRows(file, COLUMNS, whole=WHOLE, text=TEXT)
        written._write(Columns.of([*made_rows()], COLUMNS, whole=WHOLE, text=TEXT))
        written.close()
    return path


def opened(folder: Path) -> Results:
    """Results whose table is in the file, and the others in memory."""
    rng = np.random.default_rng(4)
    features = pd.concat([representations(run=run) for run in RUNS[:2]])
    return with_tables(
        rs.open_results(folder),
        evaluation=pd.concat([evaluation_of_run(run, rng) for run in RUNS]),
        training=pd.concat([training_of_run(run, rng) for run in RUNS[1:3]]),
        representations=features.drop_duplicates(["run", "step", "layer", "at"]),
    )


def contents(figure: Figure | None) -> list[Any]:
    """What is drawn: numbers, colours, patterns and words, in order."""
    drawn: list[Any] = []
    for part in [] if figure is None else figure.findobj():
        match part:
            case Line2D():
                look = part.get_color(), part.get_linestyle(), part.get_marker(), part.get_label()
                drawn.append((*look, part.get_visible(), exact(part.get_xydata())))
            case Text():
                drawn.append((part.get_text(), part.get_visible()))
            case Collection():
                numbers = part.get_offsets(), part.get_facecolor(), part.get_edgecolor()
                paths = [exact(path.vertices) for path in part.get_paths()]
                drawn.append((paths, *map(exact, (*numbers, part.get_array()))))
            case AxesImage():
                drawn.append((exact(part.get_array()), part.get_clim()))
            case Axes():
                drawn.append((part.get_xlim(), part.get_ylim(), part.get_yscale()))
    return drawn


def exact(numbers: Any) -> bytes:
    """Numbers to compare; those that are not defined are alike."""
    return np.ma.filled(np.ma.asarray(numbers, np.float64), np.nan).tobytes()


def of_whole(figure: GalleryFigure, results: Results) -> Figure | None:
    """The figure, drawn from every column of every row of its runs."""
    if not figure.has_data(results):
        return None
    if figure.of_runs is not None:
        table, runs = results.metrics, figure.of_runs(results)
        is_of_others = (table["component"] == "adapter") & ~table["run"].isin(runs)
        results = with_tables(results, metrics=table[~is_of_others])
    return figure.draw(results, RUN_GROUP if RUN_GROUP in results.metrics else "run")


def assert_same(figure: GalleryFigure, narrowed: Results, whole: Results) -> bool:
    """Whether there is a figure, of what it takes and of everything alike."""
    drawn = []
    for draw in (figure, lambda _: of_whole(figure, whole)):
        try:
            drawn.append(contents(draw(narrowed)))
        except RankscopeError as error:
            drawn.append([str(error)])
        plt.close("all")
    assert drawn[0] == drawn[1], figure
    return bool(drawn[0])


@pytest.mark.slow
def test_a_figure_of_what_it_takes_is_that_of_the_whole_table(folder: Path) -> None:
    narrowed, read = selected(opened(folder)), opened(folder)
    assert len(read.metrics) and "metrics" in vars(read)
    whole = selected(read)
    names = [name for name in FIGURES if not name.endswith(SKIPPED)]
    with_data = {name for name in names if assert_same(FIGURES[name], narrowed, whole)}
    assert "metrics" not in vars(narrowed)
    lacking = {name for name in names if FIGURES[name].table is None} - with_data
    assert not lacking and "loss" in with_data


def test_so_is_one_of_some_runs_in_groups(folder: Path) -> None:
    read = opened(folder)
    assert len(read.metrics)
    narrowed, whole = (
        selected(one, group="(.*)-", runs=["full-1", "relora-0", "lora-0"])
        for one in (opened(folder), read)
    )
    for name in ("per-weights", "per-adapters"):
        assert assert_same(FIGURES[name], narrowed, whole)
    assert "metrics" not in vars(narrowed)


@pytest.mark.slow
def test_spectra_of_what_a_figure_takes_are_those_of_the_whole_table(
    full_run: Path, tmp_path: Path
) -> None:
    analysed(full_run, "weight", "update", out=tmp_path / "out", steps=(10, 100, 1))
    read = rs.open_results(tmp_path / "out")
    assert len(read.metrics)
    narrowed, whole = (
        selected(one, roles=["o"]) for one in (rs.open_results(tmp_path / "out"), read)
    )
    assert "metrics" not in vars(narrowed)
    for name in ("update-spectra", "update-histograms"):
        assert assert_same(FIGURES[name], narrowed, whole)
