"""No example misleads: the README and docs/ are run on runs whose numbers are known beforehand.

Python blocks are executed as they are written, after the imports of those above them on the page,
in a folder with two planted runs and their results. A number in a comment behind an expression is
what it must give; any other number that an expression gives or prints is checked by an entry of
``TRUTH``. Commands must parse, and where a block shows what they print, they print exactly that. A
block that cannot be run is in ``NOT_RUN`` with the reason.
"""

import ast
import io
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import typer
from typer.testing import CliRunner

import rankscope as rs
from rankscope.cli.app import app
from rankscope.results.columns import EVALUATION_FILE
from rankscope.results.results import typed_evaluation
from tests.documents import LINK, OPTION, PAGES, ROOT, Block, anchors, arguments_of, blocks
from tests.planted import (
    LAYERS,
    STEPS,
    WIDTH,
    effective_rank,
    full_weight,
    relora_weight,
    write_planted_runs,
)

BLOCKS = [block for page in PAGES for block in blocks(page)]
CONSOLE = [block for block in BLOCKS if block.language == "console"]
SHOWN = [block for block in CONSOLE if block.output]
NUMBER = re.compile(r"#\s*(-?\d+(?:\.\d+)?|inf)\b")

# Python that is not run here: how it begins, and why.
NOT_RUN = {
    "evaluation = rs.evaluate(": "needs a language model with a tokenizer, as tests/evaluation has",
    "def recognises(": "is a sketch of a new file, without what it imports",
    "import torch\nfrom transformers": "takes a minute; tests/relora runs the callback",
    "from dask_jobqueue": "needs a cluster",
    "table = rs.represent": "needs a model; tests/representing runs it",
    'results = rs.open_results("results")\nrs.plots.features': "so do features: see tests/plots",
}
PYTHON = [block for block in BLOCKS if block.language == "python"]
RUN = [block for block in PYTHON if not block.text.startswith(tuple(NOT_RUN))]
OTHER_OPTIONS = {
    "--nproc-per-node",
    "--report",
    "--rows",
    "--columns",
    "--length",
    *("--array", "--cpus-per-task", "--time", "--parsable", "--dependency", "--wrap"),
}  # of other programs
TEST_PROGRAM = re.compile(r"`python -m tests\.[^`]*`")  # has options of its own
PROSE = [page for page in PAGES if page.parent.name != "benchmarks"]  # its programs have their own


# PER of the query weights, means over layers, by run and step.
PLANTED_PER = {
    (run, step): np.mean([effective_rank(s(step, WIDTH, at)) for at in range(LAYERS)]) / WIDTH
    for run, s in (("full", full_weight), ("relora", relora_weight))
    for step in STEPS
}


def planted_per(per: pd.Series) -> None:
    assert per.to_dict() == pytest.approx(PLANTED_PER, rel=1e-6)


def planted_table(latex: str) -> None:
    (row,) = [line for line in latex.splitlines() if line.startswith("q & ")]
    assert row == f"q & {' & '.join(f'{per:.2f}' for per in PLANTED_PER.values())} \\\\"


# What an expression gives or prints that has no number behind it: its text, and a check.
TRUTH: dict[str, Callable[[Any], None]] = {
    "weights.groupby(['run', 'step'])['per'].mean()": planted_per,
    "print(results.to_latex('per', steps=range(0, 401, 100)))": planted_table,
}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the planted runs in ``ckpts``, and in ``results`` their analysis and losses.

    Also with a tree ``messy``, in which a checkpoint of one of them lies twice.
    """
    folder = tmp_path_factory.mktemp("planted")
    write_planted_runs(folder / "ckpts")
    shutil.copytree(folder / "ckpts" / "full", folder / "messy" / "full")
    first = folder / "messy" / "full" / "checkpoint-0"
    shutil.copytree(first, first.with_name("Copy of checkpoint-0"))
    with chdir(folder):  # paths on record are relative, and hold in a copy of the folder
        table = rs.analyze("ckpts", out="results", jobs=1)
    losses = table[["run", "step"]].drop_duplicates()
    losses = losses.assign(task="novels", group="all", metric="loss", n=5)
    losses["value"] = 5 / (1 + losses["step"].astype(float))
    losses["ci_low"], losses["ci_high"] = losses["value"] - 0.1, losses["value"] + 0.1
    typed_evaluation(losses).to_parquet(folder / "results" / EVALUATION_FILE)
    return folder


@pytest.fixture
def here(planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A copy of that folder to work in."""
    mpl.use("agg")
    shutil.copytree(planted, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    yield
    import matplotlib.pyplot as plt

    plt.close("all")


def is_number(value: object) -> bool:
    if isinstance(value, tuple | list):
        return any(map(is_number, value))
    return isinstance(value, int | float | np.number | np.ndarray | pd.Series | pd.DataFrame)


def check(value: Any, source: str, comment: str) -> None:
    """Compare a value with the number behind its expression, or with the truth that is known."""
    shown = NUMBER.match(comment)
    if shown:
        digits = len(shown[1].partition(".")[2])  # none: it is exact
        margin = 0.5 * 10.0**-digits if digits else 0.0
        assert value == pytest.approx(float(shown[1]), abs=margin, rel=1e-9), source
    elif is_number(value) or isinstance(value, str):
        assert source in TRUTH, f"nothing is known of what {source} gives"
        TRUTH[source](value)


@pytest.mark.parametrize("block", RUN, ids=lambda block: block.place)
@pytest.mark.usefixtures("here")
@pytest.mark.slow
def test_python_gives_what_it_says(block: Block) -> None:
    names: dict[str, Any] = {"rs": rs}
    for above in PYTHON:
        if above.page == block.page and above.line < block.line:
            exec("\n".join(re.findall(r"^(?:import|from) .*", above.text, re.MULTILINE)), names)
    lines = block.text.splitlines()
    for statement in ast.parse(block.text).body:
        source = ast.unparse(statement)
        if isinstance(statement, ast.Expr):
            printed = io.StringIO()
            with redirect_stdout(printed):
                value = eval(source, names)
            last = lines[(statement.end_lineno or 0) - 1]
            comment = last[statement.end_col_offset or 0 :].strip()
            check(printed.getvalue() or value, source, comment)
        else:
            exec(source, names)


@pytest.mark.parametrize("beginning", NOT_RUN)
def test_what_is_not_run_is_there(beginning: str) -> None:
    assert any(block.text.startswith(beginning) for block in PYTHON)


def test_what_an_expression_must_give_is_asked_for() -> None:
    sources = {ast.unparse(statement) for block in RUN for statement in ast.parse(block.text).body}
    assert sources >= TRUTH.keys()


@pytest.mark.parametrize("block", SHOWN, ids=lambda block: block.place)
@pytest.mark.usefixtures("here")
def test_commands_print_what_is_shown(block: Block) -> None:
    shutil.rmtree("results")
    printed = []
    for command in block.commands:
        assert command.startswith("rankscope ")
        printed.append(CliRunner().invoke(app, arguments_of(command)).stdout)
    assert "".join(printed).rstrip() == block.output.rstrip()


def test_the_summary_in_the_readme_is_what_was_planted() -> None:
    (block,) = [block for block in SHOWN if block.page == "README.md"]
    weights = block.output.partition("\nupdate")[0].splitlines()[2:]
    for run, *cells in map(str.split, weights):
        ends = [PLANTED_PER[run, step] for step in (STEPS[0], STEPS[-1])]
        assert " ".join(cells).startswith("q 0 → 400 2 {:.3f} → {:.3f} ".format(*ends))
    for line in block.output.splitlines():
        if line.startswith("full  q") and line not in weights:
            assert " ".join(line.split()).endswith("0.500 → 0.500 24 → 24 24 → 24 48 1 → 1")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
@pytest.mark.usefixtures("here")
@pytest.mark.slow
def test_accounts_of_tensors_are_those_that_inspect_prints(page: Path) -> None:
    accounts = re.findall(r"^ +(tensors +\d+:.*)$", page.read_text("utf-8"), re.MULTILINE)
    if accounts:
        printed = CliRunner().invoke(app, ["inspect", "ckpts/relora"]).stdout
        assert all(account in printed for account in accounts)


def commands() -> Iterator[Any]:
    for block in CONSOLE:
        for command in block.commands:
            if command.startswith("rankscope "):
                yield pytest.param(arguments_of(command), id=f"{block.place} {command[:40]}")


@pytest.mark.parametrize("arguments", list(commands()))
def test_a_command_is_understood(arguments: list[str]) -> None:
    command, context = typer.main.get_command(app), None
    while hasattr(command, "get_command"):
        context = command.make_context("rankscope", list(arguments), parent=context)
        name, command, arguments = command.resolve_command(context, arguments)
    command.make_context(name, list(arguments), parent=context)  # raises what it cannot parse


def known_options() -> set[str]:
    """Every option that ``--help`` of some command shows."""
    found, waiting = {"--help"}, [typer.main.get_command(app)]
    for command in waiting:
        waiting += getattr(command, "commands", {}).values()
        for parameter in command.params:
            if not getattr(parameter, "hidden", False):
                found |= {*parameter.opts, *parameter.secondary_opts}
    return found


@pytest.mark.parametrize("page", PROSE, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_option_that_is_named_exists(page: Path) -> None:
    named = set(OPTION.findall(TEST_PROGRAM.sub("", page.read_text(encoding="utf-8"))))
    assert named - known_options() - OTHER_OPTIONS == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_python_name_that_is_given_exists(page: Path) -> None:
    for name in re.findall(r"(?<![\w.])rs\.([a-z_]\w*(?:\.[a-z_]\w*)*)", page.read_text("utf-8")):
        value: Any = rs
        for part in name.split("."):
            value = getattr(value, part)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link
