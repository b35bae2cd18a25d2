"""The page on figures names everything there is, and its Python runs as it is written."""

import re
import shutil
from pathlib import Path

import matplotlib as mpl
import pytest

from rankscope import plots
from rankscope.statistics.replicates import groups_of

PAGE = (Path(__file__).parents[2] / "docs" / "figures.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
TABLE = PAGE[: PAGE.index("## Choosing")]


@pytest.mark.parametrize("name", [name for name in plots.__all__ if name.islower()])
def test_every_function_is_on_the_page(name: str) -> None:
    assert re.search(rf"`[^`]*\b{name}\b", PAGE)


def test_every_figure_that_the_page_names_exists() -> None:
    rows = [line.split("|") for line in TABLE.splitlines() if line.startswith("| ")][2:]
    named = {name for row in rows for name in re.findall(r"`([\w-]+)`", row[2])}
    assert named <= {*plots.FIGURES} and len(named) > 10


def test_every_width_is_in_the_table() -> None:
    for name, inches in plots.WIDTHS.items():
        assert re.search(rf"^\|.*`{name}`.*\| {inches:.2f} \|", PAGE, re.MULTILINE)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
@pytest.mark.slow
def test_its_python_runs(
    block: str, example_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mpl.use("agg")
    shutil.copytree(example_folder / "results", tmp_path / "results")
    monkeypatch.chdir(tmp_path)
    exec(block, {})


def test_its_pattern_makes_replicates_of_runs_that_differ_in_a_seed() -> None:
    pattern, again = re.findall(r"--group '(.*?)'", PAGE)
    runs = ["relora-seed1", "relora-seed20", "full-seed1"]
    assert pattern == again
    assert [*groups_of(runs, pattern).values()] == ["relora", "relora", "full"]
