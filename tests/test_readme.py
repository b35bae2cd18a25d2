"""The README's tables have everything that they promise, and nothing else."""

import re
from itertools import takewhile

import pytest

from rankscope.cli.exit_codes import MEANINGS
from rankscope.components.selection import COMPONENTS
from rankscope.plots import WIDTHS
from rankscope.results import columns
from tests.documents import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def table(heading: str) -> list[list[str]]:
    """Cells of the rows of the table that has this heading in its first column."""
    lines = README[README.index(f"\n| {heading} |") + 1 :].splitlines()[2:]
    rows = takewhile(lambda line: line.startswith("|"), lines)
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]


def names(heading: str) -> list[str]:
    """What is in backquotes in the first column of a table."""
    return [name for row in table(heading) for name in re.findall(r"`([^`]+)`", row[0])]


def test_every_column_of_the_table_is_there_once() -> None:
    assert sorted(names("column")) == sorted(columns.COLUMNS)


def test_every_component_is_there_once() -> None:
    assert sorted(names("component")) == sorted(COMPONENTS)


def test_every_exit_code_is_there_with_what_it_means() -> None:
    assert {row[0]: row[1] for row in table("code")} == MEANINGS


def test_every_file_of_a_results_folder_is_there() -> None:
    files = {value for name, value in vars(columns).items() if name.endswith(("_FILE", "_RECORD"))}
    files |= {columns.ANALYSIS_SKIPS, columns.EVALUATION_SKIPS}
    folders = {f"{columns.SPECTRA_FOLDER}/", f"{columns.SCORES_FOLDER}/", "figures/"}
    folders |= {f"{columns.ROWS_FOLDER}/"}
    folders |= {f"{columns.SUBSPACES_FOLDER}/", "subspaces.csv", "report.html", "tensorboard/"}
    folders |= {f"{columns.ORIGINS_FOLDER}/", f"{columns.REPRESENTATIONS_FOLDER}/"}
    files |= {columns.REPRESENTATIONS_SKIPS, "representations.csv", "similarities.csv"}
    files |= {"input_energies.csv"}
    assert {*names("file")} == files | folders | {"metrics.csv", "evaluation.csv"}


@pytest.mark.parametrize("name", WIDTHS)
def test_every_width_is_there_in_inches(name: str) -> None:
    text = re.sub(r"\s+", " ", README)
    assert re.search(rf"`{name}` \({WIDTHS[name]:g}(?: inches)?[,)]", text)


def test_per_is_explained_where_it_is_first_named() -> None:
    sentence = README[: README.index("PER") + 200]
    assert "**PER**, the proportional effective rank: the number of directions" in sentence
