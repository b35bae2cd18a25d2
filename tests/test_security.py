"""What SECURITY.md promises of files from strangers, beyond what the tests of readers hold."""

import ast
import re
from pathlib import Path

import rankscope
from rankscope.checkpoints import limits
from tests.documents import ROOT

PACKAGE = Path(rankscope.__file__).parent
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
RUNS_CODE = {"eval", "exec", "compile", "__import__"}
NETWORK = {"http", "urllib", "socket", "requests", "ftplib", "huggingface_hub", "fsspec"}


def test_the_limits_are_those_that_the_page_gives() -> None:
    stated = {
        float(number.replace(",", "")) * {"MB": 10**6, "MiB": 2**20, "kB": 1000}[unit]
        for number, unit in re.findall(r"(\d+) (MB|MiB|kB)", PAGE)
    }
    kinds = ("HEADER", "ARRAY_HEADER", "BYTES", "JSON", "YAML", "CODE", "DIRECTORY")
    assert stated == {getattr(limits, f"MAX_{kind}") for kind in kinds}


def test_no_reader_can_run_code_or_reach_the_network() -> None:
    """Bytes of runs elsewhere come through one folder, for addresses that the user gave."""
    found = []
    for path in (PACKAGE / "checkpoints").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                found += [(path.name, node.func.id)] if node.func.id in RUNS_CODE else []
            modules = [node.module] if isinstance(node, ast.ImportFrom) else []
            modules += [name.name for name in node.names] if isinstance(node, ast.Import) else []
            if path.parent.name != "remote":
                roots = [(path.name, str(name).split(".")[0]) for name in modules]
                found += [one for one in roots if one[1] in NETWORK]
    assert found == []


def test_python_s_own_unpickler_is_made_in_one_place() -> None:
    users = {
        path.name
        for path in PACKAGE.rglob("*.py")
        if re.search(r"^\s*(import pickle$|from pickle import)", path.read_text("utf-8"), re.M)
    }
    # A monitor and the process that it starts hand each other messages through their own pipe.
    assert users == {"pickles.py", "recorder.py", "recorder_process.py"}
