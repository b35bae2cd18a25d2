"""Notebooks run from top to bottom, their numbers are right, and they are stored without output."""

import ast
from pathlib import Path
from typing import Any

import matplotlib as mpl
import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient
from safetensors.numpy import load_file

import rankscope
from rankscope.results.columns import EVALUATION_FILE
from rankscope.results.results import typed_evaluation
from tests.conftest import MODULES, Matrix, TinyRun

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
DEMO = {
    "1-tour": 'RUNS = "../ckpts/demo"',
    "2-rank-and-performance": 'RESULTS = "../results/demo"',
    "3-directions": 'RUNS = "../ckpts/demo"',
    "4-your-own-checkpoints": "FOLDER = tempfile.mkdtemp()",
    "5-reading-the-numbers": "SEED = 0",
}
IMAGES = dict(zip(DEMO, (3, 2, 2, 0, 0), strict=True))
TOUR, PERFORMANCE, DIRECTIONS, OWN, READING = NOTEBOOKS


def results_of(runs: Path, folder: Path) -> pd.DataFrame:
    """Analyse runs, and invent losses: falling with the step, and for PER of q the opposite."""
    table = rankscope.analyze(runs, out=folder, jobs=1)
    weights = table[(table["component"] == "weight") & (table["role"] == "q")]
    losses = weights.groupby(["run", "step"], as_index=False)["per"].mean()
    losses = losses.assign(value=5 - losses["per"], task="held-out", group="all", metric="loss")
    losses = losses.assign(ci_low=losses["value"] - 0.1, ci_high=losses["value"] + 0.1, n=5)
    typed_evaluation(losses).to_parquet(folder / EVALUATION_FILE)
    return losses


@pytest.fixture
def places(
    relora_run: TinyRun, full_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """What the notebooks are to look at instead of the demonstration."""
    runs, results = relora_run.path.parent, tmp_path_factory.mktemp("results")
    results_of(runs, results)
    return {
        "1-tour": f"RUNS = {str(runs)!r}",
        "2-rank-and-performance": f"RESULTS = {str(results)!r}",
        "3-directions": f"RUNS = {str(runs)!r}",
        "4-your-own-checkpoints": f"FOLDER = {str(tmp_path_factory.mktemp('own'))!r}",
        "5-reading-the-numbers": "SEED = 1",
    }


def shown_by(path: Path, place: str) -> list[Any]:
    """What the cells of a notebook show: the value of the last line of each that ends in one."""
    mpl.use("agg")
    names: dict[str, Any] = {}
    values = []
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type != "code":
            continue
        source = cell.source.replace(DEMO[path.stem], place)
        *lines, last = ast.parse(source).body
        exec(compile(ast.Module(lines, []), "cell", "exec"), names)
        if isinstance(last, ast.Expr):
            values.append(eval(compile(ast.Expression(last.value), "cell", "eval"), names))
        else:
            exec(compile(ast.Module([last], []), "cell", "exec"), names)
    return values


def singular_values(matrix: Matrix) -> Matrix:
    return np.linalg.svd(matrix.astype(np.float64), compute_uv=False)


def effective_rank(matrix: Matrix) -> float:
    p = singular_values(matrix) / singular_values(matrix).sum()
    return float(np.exp(-np.sum(p * np.log(p, where=p > 0, out=np.zeros_like(p)))))


def per(matrix: Matrix) -> float:
    return effective_rank(matrix) / min(matrix.shape)


@pytest.mark.slow
def test_the_numbers_of_the_tour_are_those_of_the_matrices(
    relora_run: TinyRun, full_run: Path, places: dict[str, str]
) -> None:
    shown = shown_by(TOUR, places["1-tour"])
    run, (name, layer, shape), _, kappas, ranks, medians, falls, _, _, merged = shown
    module = name.removesuffix(".weight")
    assert (run.name, layer, shape) == ("relora", 0, MODULES[module])

    left, right = relora_run.factors[30][module]
    s = singular_values(left @ right)
    assert kappas["from the factors"] == pytest.approx(s[0] / s[1])
    assert kappas["multiplied out"] > 1e6 * kappas["from the factors"]

    frozen = relora_run.weights[30][name]
    assert ranks["effective rank"] == pytest.approx(effective_rank(frozen))
    assert ranks["PER"] == pytest.approx(per(frozen))

    weights = {
        ("relora", step, module): tensors[f"{module}.weight"] + relora_run.delta(step, module)
        for step, tensors in relora_run.weights.items()
        for module in MODULES
    }
    for step in (5, 10, 100):
        tensors = load_file(full_run / f"checkpoint-{step}" / "model.safetensors")
        weights |= {("full", step, module): tensors[f"{module}.weight"] for module in MODULES}
    measured = {key: per(matrix) for key, matrix in weights.items()}
    for run_name in ("full", "relora"):
        median = np.median([x for (run, *_), x in measured.items() if run == run_name])
        assert medians.loc[(run_name, "weight"), "per"] == pytest.approx(median)
    changes = [
        measured[run, last, module] - measured[run, first, module]
        for run, first, last in (("full", 5, 100), ("relora", 0, 30))
        for module in MODULES
    ]
    assert list(falls) == pytest.approx(sorted(changes)[:5])

    for step, merges in ((10, (10,)), (20, (10, 20))):
        totals = [sum(relora_run.delta(at, m) for at in merges) for m in MODULES]
        row = merged.loc[("relora", step)]
        assert row["numerical_rank"] == 2 * len(merges)
        assert row["effective_rank"] == pytest.approx(np.mean([*map(effective_rank, totals)]))


@pytest.mark.slow
def test_the_numbers_of_performance_are_those_that_were_made(
    relora_run: TinyRun, full_run: Path, tmp_path: Path
) -> None:
    made = results_of(relora_run.path.parent, tmp_path / "results")
    shown = shown_by(PERFORMANCE, f"RESULTS = {str(tmp_path / 'results')!r}")
    losses, _, own, _, exchanged = shown
    for row in made.itertuples():
        assert losses.loc[row.step, ("held-out", row.run)] == pytest.approx(row.value)
    # The loss was made of the PER of q itself; the other run has one step in common.
    assert own.loc[("relora", "q"), ("held-out", "levels")] == -1
    assert np.isnan(exchanged.loc[("relora", "q"), ("held-out", "levels")])


@pytest.mark.slow
def test_the_overlaps_of_directions_are_those_of_the_factors(
    relora_run: TinyRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, successive, _, _, turned, intruders, _ = shown_by(
        DIRECTIONS, f"RUNS = {str(relora_run.path)!r}"
    )
    overlaps = []
    for module in MODULES:
        bases = [np.linalg.svd(relora_run.delta(step, module))[0][:, :2] for step in (10, 20)]
        overlaps.append(np.square(bases[0].T @ bases[1]).sum() / 2)
    assert successive.loc[("relora", "left", 2), "value"] == pytest.approx(np.mean(overlaps))
    one_by_one, leading = list(turned.values())[1:]
    assert one_by_one < 0.85 < 0.99 < leading
    assert intruders["value"].between(0, 10).all()


@pytest.mark.slow
def test_what_is_made_for_ones_own_checkpoints_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _, ranks, adapters, differences = shown_by(OWN, f"FOLDER = {str(tmp_path / 'own')!r}")
    assert list(ranks.loc["q", "numerical_rank"]) == [27, 22, 17]
    assert list(ranks.loc["k", "numerical_rank"]) == [32, 32, 32]
    assert (adapters.loc["adapter", "numerical_rank"] == 4).all()
    assert differences.loc["q", "sum"] == differences.loc["q", "size"] == 3
    assert differences.drop("q")["sum"].sum() <= 2


@pytest.mark.slow
def test_reading_the_numbers_shows_what_its_text_says() -> None:
    noise, bits, kappas, gaussian, windows, features, published = shown_by(READING, "SEED = 2")
    assert (noise["values above zero"], noise["values above the noise floor"]) == (64, 8)
    assert noise["κ as computed"] > 100 * noise["κ of the factors"]
    assert [number for number, _ in bits.values()] == [24, 8]
    assert kappas["64×64"][0.9] > 10 * kappas["128×64"][0.9]
    assert list(gaussian.values()) == sorted(gaussian.values())
    assert [len(values) for values in windows.values()] == [8, 4]
    ranks, chance, biased, (low, high) = features.values()
    assert ranks[256] < ranks[1024] and ranks == pytest.approx(chance, rel=0.02)
    assert biased > 0.04 and low < 0 < high
    assert ("weight", "per") in published.index


@pytest.mark.slow
def test_notebooks_take_a_single_run(
    relora_run: TinyRun, full_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for run in (relora_run.path, full_run):
        assert len(shown_by(TOUR, f"RUNS = {str(run)!r}")) == 10
        assert len(shown_by(DIRECTIONS, f"RUNS = {str(run)!r}")) == 7
    results_of(relora_run.path, tmp_path / "results")
    assert len(shown_by(PERFORMANCE, f"RESULTS = {str(tmp_path / 'results')!r}")) == 5


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_holds_no_output(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in cells)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the notebook machinery; the kernel is its own process
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, places: dict[str, str]) -> None:
    notebook = nbformat.read(path, as_version=4)
    first = notebook.cells[1]
    assert DEMO[path.stem] in first.source
    first.source = first.source.replace(DEMO[path.stem], places[path.stem])
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": path.parent}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == IMAGES[path.stem]
    assert not any(output.get("name") == "stderr" for output in outputs)
