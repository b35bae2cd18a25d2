"""Remarks at the foot of a figure: runs that ended early, and what was skipped."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.figure import Figure

from rankscope import plots
from rankscope.plots.gallery import FIGURES
from rankscope.plots.grid import add_foot
from rankscope.results.figure_source import FigureSource, source_of
from rankscope.results.results import Results
from tests.plots.conftest import SyntheticResults

REMARKS = ["ended early: relora at step 750 of 1000", "skipped by the analysis: 2 (unreadable: 2)"]


def results_of(
    folder: Path,
    steps: list[int],
    *,
    planned: int | None = None,
    logged: int | None = None,
    chosen: str | None = None,
    unit: str = "step",
) -> Results:
    """A folder that holds one record and one log."""
    run: dict[str, Any] = {"name": "a", "path": "a", "unit": unit, "planned": planned}
    run["checkpoints"] = [{"step": step} for step in steps]
    skipped = [{"reason": "unreadable"}, {"reason": "shape"}, {"reason": "unreadable"}]
    record = {
        "written": "2026-01-01",
        "options": {"steps": chosen},
        "runs": [run],
        "skipped": skipped,
        "versions": {"python": "3.11", "rankscope": "0.1.0"},
    }
    if logged is not None:
        log = pd.DataFrame({"run": "a", "step": [0, logged], "loss": 1.0})
        log.to_csv(folder / "training.csv", index=False)
        digest = hashlib.blake2b((folder / "training.csv").read_bytes(), digest_size=16)
        record["files"] = {"training.csv": digest.hexdigest(), "skipped.jsonl": "0" * 32}
    (folder / "analysis.json").write_text(json.dumps(record))
    return Results(folder)


@pytest.mark.parametrize(
    ("settings", "where"),
    [
        ({"planned": 1000}, "step 500 of 1000"),
        ({"planned": 500, "logged": 510}, None),
        ({"logged": 749}, None),  # the log goes on, but no checkpoint is missing yet
        ({"logged": 750}, "step 500, its log at 750"),
        ({"planned": 1000, "chosen": "0:500"}, None),
        ({"planned": 1000, "unit": "epoch"}, None),
        ({}, None),
    ],
)
def test_a_run_ended_early_if_more_was_planned_or_logged(
    tmp_path: Path, settings: dict[str, Any], where: str | None
) -> None:
    found = source_of(results_of(tmp_path, [0, 250, 500], **settings)).early
    assert found == ({} if where is None else {"a": where})


def test_remarks_are_about_the_runs_of_the_figure(tmp_path: Path) -> None:
    source = source_of(results_of(tmp_path, [0, 250], planned=300))
    skipped = "skipped by the analysis: 3 (shape: 1, unreadable: 2)"
    assert [*source.remarks(["a"])] == ["ended early: a at step 250 of 300", skipped]
    assert [*source.remarks(["b"])] == [skipped]
    assert [*FigureSource({}, {}, {}, {}).remarks(["a"])] == []


def test_the_identity_can_be_checked_and_holds_no_time(tmp_path: Path) -> None:
    text = source_of(results_of(tmp_path, [0, 250], logged=250)).identity()
    digest = hashlib.blake2b((tmp_path / "training.csv").read_bytes(), digest_size=16).hexdigest()
    assert text == f"Drawn from training.csv {digest[:12]}, computed with rankscope 0.1.0."


def test_a_folder_without_a_record_has_nothing_to_say(tmp_path: Path) -> None:
    source = source_of(Results(tmp_path))
    assert (source.identity(), [*source.remarks(["a"])]) == ("", [])


def overlapping(figure: Figure) -> list[tuple[str, str]]:
    """Texts of a figure that lie on each other, on its legend or on axes with their labels."""
    figure.draw_without_rendering()
    texts = {text.get_text(): text.get_window_extent() for text in figure.texts}
    others = {f"axes {i}": ax.get_tightbbox() for i, ax in enumerate(figure.axes)}
    others |= {f"legend {i}": one.get_window_extent() for i, one in enumerate(figure.legends)}
    pairs = [
        *itertools.combinations(texts.items(), 2),
        *itertools.product(texts.items(), others.items()),
    ]
    return [(a, b) for (a, box), (b, other) in pairs if other is not None and box.overlaps(other)]


@pytest.mark.parametrize("venue", ["acl", "acl-text"])
@pytest.mark.parametrize("name", ["loss", "per-weights", "intruders-weights", "depth-per-weights"])
@pytest.mark.slow
def test_the_foot_covers_nothing(results: SyntheticResults, name: str, venue: str) -> None:
    with plots.paper_style(venue):
        figure = FIGURES[name](results)  # type: ignore[arg-type]
        assert figure is not None
        width, height = figure.get_size_inches()
        add_foot(figure, REMARKS)
        assert figure.get_figwidth() == width and figure.get_figheight() > height
        assert overlapping(figure) == []
        foot = figure.texts[-1].get_window_extent()
        assert foot.y0 >= 0 and foot.x1 <= figure.bbox.x1


def test_without_remarks_the_figure_stays_as_it_is() -> None:
    figure, _ = plt.subplots()
    size = tuple(figure.get_size_inches())
    add_foot(figure, [])
    assert tuple(figure.get_size_inches()) == size and not figure.texts
