"""What all commands have in common, tried on a small program of its own."""

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from rankscope.cli import app as app_module
from rankscope.cli.command import OLD_SPELLINGS, Command, in_options
from rankscope.errors import RankscopeError, RankscopeWarning, WrongSettingError
from tests.conftest import TinyRun

PROGRAM = [sys.executable, "-c", "from rankscope.cli import main; main()"]


def program(body: Callable[[], object]) -> typer.Typer:
    """A program whose one command has options of every kind, and does this."""
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)

    @app.command(cls=Command)
    def measure(
        run: Annotated[str, typer.Argument()],
        out: Annotated[str, typer.Option("-o", "--out")] = "",
        trust_pickle: Annotated[bool, typer.Option("--trust-pickle")] = False,
        as_json: Annotated[bool, typer.Option("--json")] = False,
        engine: Annotated[str, typer.Option()] = "local",
        layout: Annotated[str, typer.Option()] = "",
    ) -> None:
        typer.echo(f"{engine} {layout}")
        body()

    return app


@pytest.mark.parametrize("kind", [RankscopeError, WrongSettingError, typer.BadParameter])
def test_an_error_names_settings_as_options(kind: type[Exception]) -> None:
    def fail() -> None:
        raise kind("set `trust_pickle=True` or another `out`; `run` and `depth` stay, as `as_json`")

    wanted = "set --trust-pickle or another --out; `run` and `depth` stay, as --json"
    result = CliRunner().invoke(program(fail), ["here"])
    assert wanted in (result.output if kind is typer.BadParameter else str(result.exception))


def test_a_setting_of_another_command_is_its_option() -> None:
    def fail() -> None:
        raise RankscopeError("analyze with `subspaces` (column `since`), not `depth` nor `as_json`")

    result = CliRunner().invoke(program(fail), ["here"], obj=app_module.app)
    wanted = "analyze with --subspaces (column `since`), not `depth` nor --json"
    assert str(result.exception) == wanted


def test_outside_of_a_command_a_setting_stays_as_it_is() -> None:
    assert in_options("choose another `out`") == "choose another `out`"


@pytest.mark.parametrize(
    ("given", "understood"),
    [
        (["--device", "cuda"], "cuda "),
        (["--device=cuda"], "cuda "),
        (["--device", "cpu"], "local "),
        (["--device=cpu"], "local "),
        (["--format", "torch"], "local torch"),
        (["--format=torch", "--engine", "dask"], "dask torch"),
        (["--engine", "cpu"], "cpu "),
    ],
)
def test_old_spellings_are_understood(given: list[str], understood: str) -> None:
    result = CliRunner().invoke(program(lambda: None), ["here", *given])
    assert result.output == f"{understood}\n"


def test_a_command_without_the_present_option_knows_no_old_spelling() -> None:
    app = typer.Typer(rich_markup_mode=None)

    @app.command(cls=Command)
    def draw(device: Annotated[str, typer.Option()] = "") -> None:
        typer.echo(device)

    assert CliRunner().invoke(app, ["--device", "cpu"]).output == "cpu\n"
    assert "No such option: --format" in CliRunner().invoke(app, ["--format", "torch"]).output


@pytest.mark.parametrize("command", ["analyze", "evaluate", "inspect"])
def test_help_shows_present_spellings_alone(command: str) -> None:
    shown = CliRunner().invoke(app_module.app, [command, "--help"]).output
    assert "--layout" in shown and "--format" not in shown
    assert ("--engine" in shown) == (command == "analyze")
    assert ("--device" in shown) == (command == "evaluate")  # where models run, another setting
    assert set(OLD_SPELLINGS) == {"--format", "--device", "--width"}


@pytest.mark.parametrize("arguments", [["--help"], ["inspect", "--help"], ["inspect", "RUN"]])
@pytest.mark.slow
def test_a_closed_pipe_is_141_and_nothing_on_stderr(
    arguments: list[str], relora_run: TinyRun
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*PROGRAM, *(str(relora_run.path) if one == "RUN" else one for one in arguments)],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


def test_a_warning_of_the_library_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = app_module._show_warning  # type: ignore[assignment]
        warnings.warn("2 skipped, the first: a file", RankscopeWarning, stacklevel=1)
    assert capsys.readouterr().err == "rankscope: 2 skipped, the first: a file\n"


def test_any_other_warning_says_where_it_came_from(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = app_module._show_warning  # type: ignore[assignment]
        warnings.warn("something else", UserWarning, stacklevel=1)
    shown = capsys.readouterr().err
    assert "UserWarning: something else" in shown and Path(__file__).name in shown
