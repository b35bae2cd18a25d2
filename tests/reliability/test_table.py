"""The table of reliability: what fell short is in it, and the README keeps everything around it."""

from pathlib import Path

import pytest

from tests.documents import ROOT
from tests.reliability import __main__ as program
from tests.reliability.row import Row
from tests.reliability.sections import cases_of

ROWS = [
    Row("bad files", 2000, "cases"),
    Row("mutants", 3, "mutants", tuple("abcd"), "seed x"),
]


def test_a_row_names_what_fell_short() -> None:
    lines = list(program.markdown(ROWS))
    assert lines[-2] == "| bad files | 2,000 cases | 0 |  |"
    assert lines[-1] == "| mutants | 3 mutants | 4: a; b; c; … | seed x |"


def test_the_readme_keeps_what_is_around_the_table() -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    once = program.with_table(page, "| new |")
    assert program.with_table(once, "| new |") == once
    for part in (page.partition(program.START)[0], page.partition(program.END)[2]):
        assert part and part in once


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(SystemExit, match="has no lines"):
        program.with_table("# Title", "| new |")


def test_failing_cases_are_counted_and_named(tmp_path: Path) -> None:
    file = tmp_path / "test_some.py"
    file.write_text(
        "import pytest\n\n\n@pytest.mark.parametrize('n', [1, 2, 3])\n"
        "def test_some(n):\n    assert n != 2\n"
    )
    (row,) = cases_of("some", "cases", str(file))(tmp_path, False)
    assert (row.tried, row.short) == (3, ("test_some[2]",))
