"""Who may import whom: data flows one way, and the heavy packages load late."""

import ast
import re
import subprocess
import sys
from collections import Counter
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import rankscope

PACKAGE = Path(rankscope.__file__).parent

# A room, and the modules of this package that it may import. A dot names a single module.
MAY_IMPORT = {
    "addresses": set(),
    "errors": {"addresses"},
    "lightning_base": set(),
    "platforms": set(),
    "writers": {"platforms"},
    "durable": {"writers", "platforms"},
    "folder_lock": {"errors", "durable"},
    "metrics": set(),
    "shape_metrics": {"metrics"},
    "groups": set(),
    "keyed": set(),
    "new_cycle": {"errors", "keyed"},
    "run_files": {"durable"},
    "relora": {"lightning_base", "errors", "durable", "keyed", "new_cycle", "run_files"},
    "checkpoints": {"addresses", "errors", "durable", "platforms", "results.columns"},
    "spectra": {"errors"},
    "components": {
        *("errors", "checkpoints"),
        *("spectra.matrices", "spectra.rounding", "spectra.formats", "spectra.bounds"),
        *("spectra.cosines", "spectra.shared_rounding"),
    },
    "results": {
        *("errors", "durable", "metrics", "shape_metrics"),
        *("spectra.spectrum", "spectra.bounds", "spectra.chance", "spectra.subspace_measures"),
        *("statistics.latex_table", "statistics.markup", "statistics.restart_schedules"),
        *("representations.feature_metrics", "representations.probe_features"),
        "representations.input_energy",
    },
    "pipeline": {
        "addresses",
        "errors",
        "durable",
        "results.record",
        "results.columns",
        "results.run_folders",
        "checkpoints",
    },
    "analysis": {
        "addresses",
        *("errors", "durable", "platforms", "groups", "metrics", "results"),
        *("checkpoints", "spectra", "components", "pipeline", "statistics.onset"),
    },
    "statistics": {"errors", "metrics", "shape_metrics", "published", "checkpoints.families.names"},
    "scoring": {"errors", "groups", "statistics.intervals"},
    "training": {
        *("errors", "durable", "platforms", "groups", "metrics", "scoring"),
        *("folder_lock", "keyed", "new_cycle", "run_files"),
    },
    "dry_run": {"errors", "platforms", "training"},
    "evaluation": {
        *(
            "errors",
            "durable",
            "checkpoints",
            "results",
            "pipeline",
            "scoring",
            "statistics.intervals",
        ),
        *("training.model", "training.run_folder", "training.data", "training.config"),
        "training.config_file",
    },
    "diagnostics": {
        "addresses",
        *("errors", "checkpoints", "results", "analysis.history", "analysis.request"),
        *("pipeline.calls", "spectra.formats", "spectra.rounding"),
    },
    "plots": {
        *("errors", "durable", "results", "statistics"),
    },
    "watching": {
        "addresses",
        *("errors", "durable", "checkpoints", "results"),
        *("pipeline", "analysis", "statistics", "components.selection"),
    },
    "monitoring": {
        "lightning_base",
        *("errors", "writers", "durable", "platforms", "checkpoints", "components", "results"),
        *("folder_lock", "new_cycle"),
        *("pipeline.call_results", "pipeline.choices", "pipeline.engine", "analysis"),
        *("watching.kept_rows", "watching.mirrors", "statistics.quantities"),
    },
    "comparison": {
        "addresses",
        *("errors", "checkpoints", "components", "results", "statistics", "analysis"),
        *("spectra.bases", "spectra.chance", "spectra.matrices"),
    },
    "representations": {
        *("errors", "metrics", "shape_metrics", "spectra.bounds", "spectra.rounding"),
        *("spectra.chance", "statistics.intervals"),
    },
    "representing": {
        *("errors", "durable", "checkpoints", "results", "pipeline"),
        *("scoring", "evaluation", "representations", "components"),
        *("spectra.bounds", "spectra.formats", "spectra.matrices", "statistics.equal_loss"),
    },
    "published": {"errors"},
    "report": {
        *("errors", "durable", "metrics", "results", "statistics", "plots"),
        *("diagnostics", "checkpoints", "pipeline.calls"),
    },
}


def files_of(room: str) -> list[Path]:
    folder = PACKAGE / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


def imported(path: Path) -> set[str]:
    """Modules of this package that a file imports, anywhere in it, without the package's name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return {name.removeprefix("rankscope.") for name in found if name.startswith("rankscope.")}


def may(room: str, module: str) -> bool:
    allowed = {room, *MAY_IMPORT[room]}
    return any(module == one or module.startswith(f"{one}.") for one in allowed)


@pytest.mark.parametrize("room", MAY_IMPORT)
@pytest.mark.slow
def test_imports_point_one_way(room: str) -> None:
    wrong = {
        (path.name, module)
        for path in files_of(room)
        for module in imported(path)
        if not may(room, module)
    }
    assert not wrong


def test_every_room_has_a_rule() -> None:
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert rooms - {"__init__", "__main__", "__pycache__", "cli"} == set(MAY_IMPORT)


def test_the_page_on_the_design_says_the_same() -> None:
    page = (PACKAGE.parent / "docs" / "design.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", page, re.MULTILINE)
    assert {room: set(re.findall(r"`([\w.]+)`", allowed)) for room, allowed in rows} == MAY_IMPORT


def test_every_file_that_the_page_on_the_design_names_is_there() -> None:
    page = (PACKAGE.parent / "docs" / "design.md").read_text(encoding="utf-8")
    there = {path.name for path in PACKAGE.rglob("*.*")}
    named = re.findall(r"`([\w/]+\.(?:py|toml))`", page)
    assert named
    for name in named:
        found = (PACKAGE.parent / name).exists() or (PACKAGE / "checkpoints" / name).exists()
        assert found or ("/" not in name and name in there), name


def modules() -> dict[str, Path]:
    """Every module of the package by its name, packages by the name of their folder."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path
        for path in PACKAGE.rglob("*.py")
    }


@pytest.mark.slow
def test_imports_make_no_circle() -> None:
    known = modules()
    graph = {
        name: {
            module if module in known else module.rpartition(".")[0] for module in imported(path)
        }
        & known.keys() - {name}
        for name, path in known.items()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError, which shows the circle


def test_no_file_name_is_used_twice() -> None:
    names = Counter(
        path.name
        for path in PACKAGE.rglob("*.py")
        if path.name != "__init__.py" and path.parent.name != "cli"
    )
    assert [name for name, count in names.items() if count > 1] == []
    assert "relora.py" not in names


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after running ``code``."""
    listing = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{listing}"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split("\n")[-2].split())


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import rankscope", {"numpy", "torch", "pandas", "matplotlib", "typer"}),
        ("import rankscope.cli", {"numpy", "torch", "pandas", "matplotlib", "rich"}),
        ("import rankscope.analysis.local_workers", {"numpy"}),
        ("import rankscope.analysis.worker", {"torch", "pandas", "matplotlib", "scipy", "typer"}),
        ("from rankscope import open_run, analyze, spectrum", {"torch", "matplotlib", "pandas"}),
        ("import rankscope.analysis.results_folder", {"torch", "matplotlib", "pandas"}),
        (
            "from rankscope import evaluate",
            {"torch", "transformers", "tokenizers", "pandas", "scipy", "matplotlib"},
        ),
        ("import rankscope.evaluation.evaluation_folder", {"torch", "transformers", "tokenizers"}),
        (
            "from rankscope import represent",
            {"torch", "transformers", "tokenizers", "pandas", "matplotlib"},
        ),
        ("import rankscope.scoring.accuracy, rankscope.scoring.perplexity", {"torch"}),
        ("import rankscope.training.config, rankscope.training.config_file", {"torch"}),
        ("from rankscope import plots; plots.per", {"torch"}),
        ("import rankscope.monitoring.monitor", {"torch", "pandas", "matplotlib"}),
        ("import rankscope.monitoring.recorder", {"torch", "pandas", "matplotlib", "typer"}),
    ],
)
@pytest.mark.slow
def test_heavy_packages_load_only_where_they_are_needed(code: str, absent: set[str]) -> None:
    assert not loaded_by(code) & absent


def test_every_public_name_is_there() -> None:
    for name in rankscope.__all__:
        assert getattr(rankscope, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = rankscope.nothing
