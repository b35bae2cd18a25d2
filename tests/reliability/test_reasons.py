"""The reason codes that the code gives are those that docs/checkpoints.md lists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import rankscope
from tests.documents import ROOT
from tests.reliability.bad_files import BAD_FILES

PACKAGE = Path(rankscope.__file__).parent
PAGE = (ROOT / "docs" / "checkpoints.md").read_text(encoding="utf-8")
SECTION = PAGE.partition("## Reason codes\n")[2].partition("\n## ")[0]
PLACES = {"Skip": 2, "Failure": 0, "misfit": 1, "UnknownNorm": 0}  # of the code among arguments
OF_TRAINERS = {"lost", "unequal"}  # of processes that train together; nothing is skipped then
CODE = re.compile(r"[a-z]+(-[a-z]+)*")


def documented() -> set[str]:
    """Codes in the first column."""
    return {
        code
        for line in SECTION.splitlines()
        if line.startswith("| `")
        for code in re.findall(r"`([\w-]+)`", line.split("|")[1])
    } - {"no-COMPONENT"}


def given() -> Iterator[str]:
    """Codes that are written where a skip or an error is made."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.id if isinstance(node.func, ast.Name) else ""
            values = [one.value for one in node.keywords if one.arg == "reason"]
            values += node.args[PLACES[name] : PLACES[name] + 1] if name in PLACES else []
            for value in values:
                if isinstance(value, ast.Constant) and CODE.fullmatch(str(value.value)):
                    yield str(value.value)


def literals() -> set[str]:
    """All texts in the package, of statuses without their first word."""
    return {
        node.value.removeprefix("skipped:")
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def test_every_code_is_documented_and_every_documented_one_exists() -> None:
    found = set(given()) | {bad.reason for bad in BAD_FILES if bad.reason}
    assert found - OF_TRAINERS <= documented()
    assert documented() <= literals()
