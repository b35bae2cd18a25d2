"""Laws of converted values: typer's own converter gives the same, and says what is wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
import typer
from typer.testing import CliRunner

from rankscope.cli.command import Command
from rankscope.cli.plain_values import NotPlainError, plain

GIVEN = [
    ["a"],
    ["a", "b"],
    ["", "--name", ""],
    ["a", "--count", "7"],
    ["a", "--count", "-3"],
    ["a", "--count", "0"],
    ["a", "--count", "1000000"],
    ["a", "--count", " 7"],
    ["a", "--count", "7.0"],
    ["a", "--count", "1_000"],
    ["a", "--count", "٣"],
    ["a", "--kind", "two"],
    ["a", "--kind", "TWO"],
    ["a", "--name", "ü ="],
    ["a", "--out", "x/../y"],
    ["a", "--out", ""],
    ["a", "--out", "/etc/shadow"],
    ["a", "--there", "/nowhere"],
    ["a", "--there", "."],
    ["a", "--share", "0.5"],
    ["a", "--share", "x"],
    ["a", "--is-so"],
    ["a", "--parsed", "3"],
    [],
]


def program(command: type[Any]) -> typer.Typer:
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)

    @app.command(cls=command)
    def show(
        runs: Annotated[list[Path], typer.Argument(readable=False)],
        count: Annotated[int | None, typer.Option(min=0, max=100)] = None,
        kind: Annotated[Literal["one", "two"], typer.Option()] = "one",
        name: Annotated[str | None, typer.Option()] = None,
        out: Annotated[Path, typer.Option()] = Path("results"),
        there: Annotated[Path | None, typer.Option(exists=True)] = None,
        share: Annotated[float, typer.Option()] = 1.0,
        kept: Annotated[int, typer.Option(min=1)] = 2048,
        is_so: Annotated[bool, typer.Option("--is-so")] = False,
        parsed: Annotated[int, typer.Option(parser=lambda text: 2 * int(text))] = 1,
    ) -> None:
        typer.echo(repr((runs, count, kind, name, out, there, share, kept, is_so, parsed)))

    return app


@pytest.mark.parametrize("given", GIVEN, ids=" ".join)
def test_typer_gives_the_same_value_or_error(given: list[str]) -> None:
    from typer.core import TyperCommand

    ours, theirs = (CliRunner().invoke(program(one), given) for one in (Command, TyperCommand))
    assert (ours.output, ours.exit_code) == (theirs.output, theirs.exit_code)


def test_what_may_be_wrong_is_left_to_typer() -> None:
    info = typer.Option(min=1)
    with pytest.raises(NotPlainError):
        plain("0", int, info)
    assert plain("1", int, info) == 1


@pytest.mark.slow
def test_a_plain_call_loads_no_pydantic(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom rankscope.cli import main\n"
        f"sys.argv = ['rankscope', 'analyze', {str(tmp_path)!r}, '--jobs', '1', '--engine', "
        f"'local', '--out', {str(tmp_path / 'out')!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    print('pydantic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
