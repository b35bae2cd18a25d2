"""Notebooks run from top to bottom on a tiny run, and are stored without what they printed."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import rankscope
from rankscope.results.columns import EVALUATION_FILE
from rankscope.results.results import typed_evaluation
from tests.conftest import TinyRun

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
DEMO = {"1-tour": 'RUNS = "../ckpts/demo"', "2-rank-and-performance": 'RESULTS = "../results/demo"'}
IMAGES = {"1-tour": 3, "2-rank-and-performance": 2}


@pytest.fixture
def places(
    relora_run: TinyRun, full_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, str]:
    """What the notebooks are to look at instead of the demonstration."""
    runs = relora_run.path.parent
    results = tmp_path_factory.mktemp("results")
    table = rankscope.analyze(runs, out=results)
    steps = table[["run", "step"]].drop_duplicates()
    losses = steps.assign(task="held-out", group="all", metric="loss", n=5)
    losses["value"] = 5 / (1 + losses["step"].astype(float))
    losses["ci_low"], losses["ci_high"] = losses["value"] - 0.1, losses["value"] + 0.1
    typed_evaluation(losses).to_parquet(results / EVALUATION_FILE)
    return {
        "1-tour": f"RUNS = {str(runs)!r}",
        "2-rank-and-performance": f"RESULTS = {str(results)!r}",
    }


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
