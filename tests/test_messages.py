"""The library knows no flags: it names settings, and the command line turns them into options."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import rankscope

PACKAGE = Path(rankscope.__file__).parent
OPTION = re.compile(r"(?<![\w-])--[a-z]\w*")


def options_in(code: str) -> Iterator[str]:
    """Line and text of every string of a program, docstrings included, that names an option."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            for option in OPTION.findall(node.value):
                yield f"line {node.lineno}: {option}"


@pytest.mark.slow
def test_no_string_outside_the_command_line_names_an_option() -> None:
    found = {
        str(path.relative_to(PACKAGE)): list(options_in(path.read_text(encoding="utf-8")))
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.parent.name != "cli"
    }
    assert {path: lines for path, lines in found.items() if lines} == {}


@pytest.mark.parametrize(
    ("code", "number"),
    [
        ('"""Give another --out."""', 1),
        ('f"choose another --out {name}"', 1),
        ("raise ValueError('set ' '--trust-pickle')", 1),
        ("x = 'models--ORG--NAME'", 0),
        ("x = 'a -- b'", 0),
        ("# --out\nx = '---'", 0),
    ],
)
def test_what_counts_as_an_option(code: str, number: int) -> None:
    assert len(list(options_in(code))) == number
