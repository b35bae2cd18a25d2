"""The page of results: what it says, and that names from files stay text."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

import rankscope as rs
from rankscope import plots
from rankscope.cli.report import report
from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.report import matrix_table, page
from rankscope.report.hover import hover_panels, svg_of
from rankscope.report.matrix_table import HEIGHT, MARGIN, WIDTH, curve, matrix_rows
from rankscope.report.methods import methods
from rankscope.results import record as records
from rankscope.results.columns import EVALUATION_COLUMNS, EVALUATION_FILE, METRICS_FILE
from rankscope.results.results import typed_evaluation
from tests.conftest import (
    TinyRun,
    forget_digests,
    random_weights,
    write_full_run,
    write_model,
)
from tests.diagnostics.surgery import adapter, edit
from tests.planted import effective_rank, full_weight
from tests.reliability.called import opened_files

HOSTILE = "</script><script>document.title='hacked'</script><img src=x onerror=alert(1)> ' \" & $"


@pytest.fixture(scope="module")
def written(planted: Path) -> str:
    """The page with three figures: all of them would take long."""
    with pytest.MonkeyPatch.context() as patch:
        kept = ("loss", "per-weights", "heatmap-per-weights")
        patch.setattr(page, "gallery", lambda _, **__: {name: plots.FIGURES[name] for name in kept})
        return rs.write_report(planted).read_text(encoding="utf-8")


class Elements(HTMLParser):
    """Tags with their attributes, and the text outside of scripts and styles."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self._inside = "", ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.text += data


def test_the_page_needs_nothing_beside_it(written: str) -> None:
    for _, attributes in Elements(written).tags:
        for name in ("src", "href", "xlink:href", "action", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    assert not re.search(r"url\((?!#)", written) and "@import" not in written


def test_no_id_occurs_twice(written: str) -> None:
    ids = [attributes["id"] for _, attributes in Elements(written).tags if attributes.get("id")]
    assert len(ids) == len(set(ids))


def test_the_same_results_give_the_same_page(planted: Path, tmp_path: Path, written: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "gallery", lambda _, **__: {"loss": plots.FIGURES["loss"]})
        pages = [rs.write_report(planted, tmp_path / name).read_bytes() for name in "ab"]
    assert pages[0] == pages[1]


def test_names_from_files_stay_text(planted: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(planted, tmp_path / "results")
    forget_digests(folder)
    table = pd.read_parquet(folder / METRICS_FILE)
    names = table["name"].where(table["role"] != "q", HOSTILE)
    table.assign(run=table["run"] + HOSTILE, name=names).to_parquet(folder / METRICS_FILE)
    record = json.loads((folder / "analysis.json").read_text())
    record["skipped"] = [{"path": HOSTILE, "tensor": HOSTILE, "reason": "x", "message": HOSTILE}]
    record["summary"]["findings"] = [HOSTILE]
    (folder / "analysis.json").write_text(json.dumps(record))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            page, "gallery", lambda _, **__: {"per-weights": plots.FIGURES["per-weights"]}
        )
        source = rs.write_report(folder, title=HOSTILE).read_text(encoding="utf-8")
    elements = Elements(source)
    assert not [tag for tag, _ in elements.tags if tag == "img"]
    assert len([tag for tag, _ in elements.tags if tag == "script"]) == 2  # one figure, the page's
    assert elements.text.count(HOSTILE) >= 6


def test_matrices_have_their_last_numbers_and_a_curve(planted: Path) -> None:
    rows, count = matrix_rows(rs.open_results(planted))
    assert len(rows) == count
    one = next(r for r in rows if (r.run, r.component, r.role) == ("full", "weight", "q"))
    assert one.per == pytest.approx(effective_rank(full_weight(400, 48, 0)) / 48, rel=1e-6)
    assert one.per_first == pytest.approx(1, rel=1e-6)
    assert (one.rank, one.steps, one.shape) == ("48 of 48", "0–400", "48×48")
    assert rows[0].component == "weight"


def test_a_curve_is_broken_where_a_value_is_missing() -> None:
    drawn = curve(np.array([0.0, 1, 2, 3]), np.array([1, np.nan, 0, 0.5]))
    assert drawn == (
        f"M{MARGIN:.1f} {MARGIN:.1f}M{MARGIN + (WIDTH - 2 * MARGIN) * 2 / 3:.1f} "
        f"{HEIGHT - MARGIN:.1f}L{WIDTH - MARGIN:.1f} {HEIGHT / 2:.1f}"
    )
    assert curve(np.array([5.0]), np.array([0.5])) == ""


def test_what_is_pointed_at_is_where_it_is_drawn() -> None:
    figure, ax = plt.subplots(figsize=(4, 3))
    ax.plot([1, 2, 3], [10.0, np.nan, 1000.0], color="#0072B2", label="a run")
    ax.axvline(2)
    ax.set(yscale="log", title="q", xlim=(0, 4), ylim=(1, 1e4))
    svg = svg_of(figure, "name")
    (panel,) = hover_panels(figure)
    plt.close(figure)
    width, height = map(float, re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)[0])
    assert (width, height) == (4 * 72, 3 * 72)
    (series,) = panel.series
    assert (panel.title, series.label) == ("q", "a run")
    assert series.values == [("1", "10"), ("3", "1,000")]
    across = [(x - panel.left) / (panel.right - panel.left) for x, _ in series.at]
    up = [(panel.bottom - y) / (panel.bottom - panel.top) for _, y in series.at]
    assert across == pytest.approx([0.25, 0.75], abs=1e-3)
    assert up == pytest.approx([0.25, 0.75], abs=1e-3)


def test_cells_of_a_map_have_their_values() -> None:
    figure, ax = plt.subplots()
    ax.pcolormesh([0, 1, 2], [0, 1], [[0.25, np.nan]])
    ax.set_yticks([0.5], ["layer 3"])
    svg_of(figure, "map")
    (panel,) = hover_panels(figure)
    plt.close(figure)
    assert panel.series[0].values == [("0.50", "layer 3", "0.25")]


def test_a_folder_without_results_has_no_page(tmp_path: Path) -> None:
    with pytest.raises(RankscopeError):
        rs.write_report(tmp_path)


def test_the_command_writes_the_page_and_names_it(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "gallery", lambda _, **__: {})
    app = typer.Typer()
    app.command()(report)
    done = CliRunner().invoke(app, [str(planted), "--out", str(tmp_path / "a.html")])
    assert (done.exit_code, done.output.strip()) == (0, str(tmp_path / "a.html"))
    assert "<title>Rank of full, relora" in (tmp_path / "a.html").read_text(encoding="utf-8")


def test_figures_of_the_page_can_be_of_replicates(planted: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "gallery", lambda _, **__: {"per": plots.FIGURES["per-weights"]})
        written = rs.write_report(planted, tmp_path / "report.html", group="full|relora")
    assert "over layers, then over 1 run" in written.read_text(encoding="utf-8")


def without_figures(results: Path, out: Path, *runs: Path) -> str:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "gallery", lambda _, **__: {})
        return rs.write_report(results, out, runs=runs).read_text(encoding="utf-8")


def test_the_page_shows_findings_about_the_runs_that_are_named(
    relora_run: TinyRun, full_run: Path, tmp_path: Path, rng: np.random.Generator
) -> None:
    runs, results = relora_run.path.parent, tmp_path / "results"
    rs.analyze(runs, out=results, components="weight", roles="q", jobs=1)
    assert "Nothing was found in 2 runs." in without_figures(results, tmp_path / "a.html", runs)
    edit(adapter(relora_run, 0), lambda name, value: 0 * value)
    shutil.rmtree(full_run)
    full_run.mkdir()
    written = without_figures(results, tmp_path / "a.html", relora_run.path, full_run)
    text = Elements(written).text
    assert "adapter-dead" in text and "→ Start each cycle with A random" in text
    assert f"Not examined: {full_run}: holds no checkpoint" in text
    write_model(tmp_path / "other", random_weights(rng))
    for wrong in (runs / "gone", tmp_path / "other"):
        with pytest.raises(WrongSettingError, match=r"does not exist|holds other runs"):
            without_figures(results, tmp_path / "b.html", wrong)
    assert not (tmp_path / "b.html").exists()


@pytest.fixture(scope="module")
def analysed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `ckpts`, a tree of one run, and its `results`."""
    folder = tmp_path_factory.mktemp("analysed")
    write_full_run(folder / "ckpts" / "full", np.random.default_rng(0))
    rs.analyze(folder / "ckpts", out=folder / "results", components="weight", roles="q", jobs=1)
    return folder


def forged(results: Path, **record: object) -> None:
    """Results whose record was changed by somebody who knows its digest."""
    path = results / "analysis.json"
    content = json.loads(path.read_text()) | record
    content[records.DIGEST] = records._digest_of_record(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("kind", ["run", "base", "family", "pickle", "file"])
def test_nothing_that_a_record_names_is_opened(
    analysed_run: Path, tmp_path: Path, kind: str
) -> None:
    """Results may come from anybody: their paths are of another machine, or chosen to do harm."""
    results, secret = tmp_path / "results", tmp_path / "secret"
    shutil.copytree(analysed_run / "results", results)
    shutil.copytree(analysed_run / "ckpts", secret)
    (secret / "own.toml").write_text("when = {}")
    options = json.loads((results / "analysis.json").read_text())["options"]
    forged(
        results,
        **{
            "run": {"runs": [{"name": "full", "path": str(secret / "full")}]},
            "base": {"options": options | {"base": str(secret / "full")}},
            "pickle": {"options": options | {"trust_pickle": True}},
            "family": {"options": options | {"family": str(secret / "own.toml")}},
            "file": {"files": {str(secret / "own.toml"): None, "../secret/own.toml": None}},
        }[kind],
    )
    runs = [analysed_run / "ckpts"]
    with opened_files() as opened:
        if kind == "file":
            assert records.intact_record(results / "analysis.json") == {}
        else:
            alone, text = (
                without_figures(results, tmp_path / "a.html", *one) for one in ((), runs)
            )
            assert "No checkpoint was opened" in alone
            assert ("Nothing was found in 1 run." in text) == (kind == "run")
            assert ("they were read with" in text) == (kind != "run")
    assert not [path for path in opened if path.startswith(str(secret))]
    assert [path for path in opened if path.startswith(str(results))]


def test_an_evaluation_alone_is_no_analysis(planted: Path, tmp_path: Path) -> None:
    row = {"run": "a", "step": 1, "task": "t", "group": "", "metric": "loss", "value": 2.0, "n": 1}
    folder = tmp_path / "results"
    folder.mkdir()
    columns = list(EVALUATION_COLUMNS)
    typed_evaluation(pd.DataFrame([row], columns=columns)).to_parquet(folder / EVALUATION_FILE)
    skip = {"path": "b.pt", "tensor": "", "reason": "damaged", "message": "is cut short"}
    (folder / "evaluation.json").write_text(json.dumps({"skipped": [skip]}))
    text = Elements(without_figures(folder, tmp_path / "a.html")).text
    assert "Performance of a" in text and "an evaluation alone" in text
    assert "is cut short" in text and "Nothing was skipped" not in text


def test_merges_are_no_checkpoints(planted: Path) -> None:
    said = methods(rs.open_results(planted), {}).paragraphs[0]
    assert said.startswith("We analysed 2 runs with 5 checkpoints each, using")


def test_what_is_beyond_the_page_is_said_and_not_offered(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matrix_table, "MOST_ROWS", 5)
    written = without_figures(planted, tmp_path / "a.html")
    assert re.search(r"The first 5 of \d+ matrices; metrics.csv has them all", written)
    assert "<option>full</option>" in written and "<option>relora</option>" not in written


def test_a_folder_is_no_page(planted: Path, tmp_path: Path) -> None:
    with pytest.raises(WrongSettingError, match="`out` is a folder"):
        rs.write_report(planted, tmp_path)
