"""The program ``rankscope``: its commands, its signals and its exit codes."""

from __future__ import annotations

import errno
import gc
import io
import os
import signal
import sys
import traceback
import warnings
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from rankscope.cli.analyze import analyze
from rankscope.cli.command import Command, Program, in_options
from rankscope.cli.compare import compare
from rankscope.cli.correlate import correlate
from rankscope.cli.data import data
from rankscope.cli.diagnose import diagnose
from rankscope.cli.evaluate import evaluate
from rankscope.cli.exit_codes import (
    MEANINGS,
    NOT_WRITTEN,
    NOTHING_DONE,
    SIGNAL,
    WRONG_USE,
)
from rankscope.cli.figures import figures
from rankscope.cli.inspect import inspect
from rankscope.cli.report import report
from rankscope.cli.represent import represent
from rankscope.cli.train import train
from rankscope.cli.watch import watch
from rankscope.errors import (
    LONGEST,
    RankscopeError,
    RankscopeWarning,
    WrongSettingError,
    cannot_be_read,
    printable,
)

# After a line with \b, help is not wrapped.
EXIT_CODES = "\n".join(
    ["\b", "Exit codes:", *(f"  {code:<8}  {text}" for code, text in MEANINGS.items())]
)
STANDARD_ERROR = 2  # as the system numbers it, after input and output
# New objects after which Python looks for garbage in `analyze`. Most of what it makes are modules,
# plans and rows, which stay; commands that train or score have tensors in their garbage.
MANY_OBJECTS = 50_000
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # only writing meets them


def _program() -> typer.Typer:
    return typer.Typer(
        name="rankscope",
        cls=Program,
        help="How the rank of a network's weights and updates evolves over training.",
        epilog=EXIT_CODES,
        no_args_is_help=True,
        rich_markup_mode=None,  # plain help starts fast and pipes well
        pretty_exceptions_enable=False,
    )


app = _program()
for command in (
    *(analyze, evaluate, represent, watch, inspect, diagnose, compare, correlate),
    *(figures, report, train),
):
    app.command(cls=Command)(command)
app.add_typer(data)


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
    debug: Annotated[  # taken out of the arguments by main, so that it may be anywhere
        bool, typer.Option("--debug", help="Show the traceback of an error; may be given anywhere.")
    ] = False,
) -> None:
    if version:
        from importlib.metadata import version as installed

        typer.echo(installed("rankscope"))
        raise typer.Exit


def main() -> None:
    """Run the command line: an error is one line on stderr, and never a traceback.

    `rankscope.cli.exit_codes` says what each exit code means.
    """
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv[1:])
    if arguments[:1] == ["analyze"]:
        gc.set_threshold(MANY_OBJECTS)
    _open_standard_streams()
    for interrupt in (signal.SIGINT, signal.SIGTERM):
        signal.signal(interrupt, _leave)
    if isinstance(sys.stdout, io.TextIOWrapper):  # cp1252, as of Windows, has neither σ nor →
        sys.stdout.reconfigure(errors="replace")
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    try:
        _with(arguments[:1])(args=arguments, prog_name="rankscope", obj=app)
    except WrongSettingError as error:
        _end(str(error), WRONG_USE, debug=debug)
    except RankscopeError as error:
        _end(str(error), NOTHING_DONE, debug=debug)
    except OSError as error:
        if _is_of_writing(error):
            where = f"{printable(str(error.filename))}: " if error.filename else ""
            message = f"{where}cannot be written ({error.strerror or error})"
            if isinstance(error, FileExistsError | NotADirectoryError):
                message += ": a file is where a folder should be: choose another one"
            _end(message, NOT_WRITTEN, debug=debug)
        _end(str(cannot_be_read(error)), NOTHING_DONE, debug=debug)
    finally:
        if debug:
            _print_fetched()
        gc.freeze()  # else Python looks through all objects for garbage as it ends


def _open_standard_streams() -> None:
    """Open those that the caller closed: what is opened next would get their numbers."""
    while (opened := os.open(os.devnull, os.O_RDWR)) <= STANDARD_ERROR:
        pass
    os.close(opened)
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _with(names: list[str]) -> typer.Typer:
    """The program with this command alone: making all of them takes a fourth of a short call."""
    commands = app.registered_commands
    chosen = [each for each in commands if each.callback and each.callback.__name__ in names]
    if not chosen:  # help, another word, or a command with commands of its own
        return app
    program = _program()
    program.registered_callback, program.registered_commands = app.registered_callback, chosen
    return program


def _print_fetched() -> None:
    """Say on stderr how much was fetched from elsewhere, if anything was."""
    from rankscope.checkpoints.limits import size_text
    from rankscope.checkpoints.remote.ledger import fetched

    found = fetched()
    if found.requests:
        line = f"rankscope: {size_text(found.size)} fetched in {found.requests} requests"
        typer.echo(line, err=True)


def _is_of_writing(error: OSError) -> bool:
    """Whether the system refused to write: all that lasts is written by `rankscope.durable`."""
    from rankscope import durable

    modules = {frame.f_globals["__name__"] for frame, _ in traceback.walk_tb(error.__traceback__)}
    return durable.__name__ in modules or error.errno in FULL


def _show_warning(message: Warning | str, category: type[Warning], *where: Any) -> None:
    """Print the library's warnings as one line each, and any other as Python does."""
    if issubclass(category, RankscopeWarning):
        typer.echo(f"rankscope: {printable(in_options(str(message)), limit=LONGEST)}", err=True)
    else:
        typer.echo(warnings.formatwarning(message, category, *where[:2]), err=True, nl=False)


def _end(message: str, code: int, *, debug: bool) -> NoReturn:
    if debug:
        traceback.print_exc()
    typer.echo(f"rankscope: {message}", err=True)
    raise SystemExit(code) from None


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    typer.echo("\nrankscope: interrupted; what was finished is kept", err=True)
    raise SystemExit(SIGNAL + number)
