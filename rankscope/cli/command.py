"""What all commands have in common: old spellings, messages that name options, closed pipes."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from rankscope.cli.exit_codes import CLOSED_PIPE
from rankscope.cli.plain_values import spare_adapters
from rankscope.errors import RankscopeError

OLD_SPELLINGS = {"--format": "--layout", "--device": "--engine", "--width": "--venue"}
SETTING = re.compile(r"(?<!column )`(\w+)(?:=True)?`")


class Options(dict[str, str]):
    """Options by the settings that they give; the empty text for names that are not settings.

    Parameters
    ----------
    own
        Those of the running command.
    program
        Whose other commands have options too, which are looked up when the first is asked for.
    """

    def __init__(self, own: Mapping[str, str], program: typer.Typer | None = None) -> None:
        super().__init__(own)
        self._program = program

    def __missing__(self, name: str) -> str:
        if self._program is not None:
            others = dict(_iter_options(typer.main.get_command(self._program)))
            self._program = None
            self.update(others | self)
        return self.setdefault(name, "")


def _iter_options(command: Any) -> Iterator[tuple[str, str]]:
    """Settings of a command, or of all commands of a group, and how they are spelled."""
    for each in getattr(command, "commands", {}).values():
        yield from _iter_options(each)
    for parameter in command.params:
        yield parameter.name, max(parameter.opts, key=len)


running_options: ContextVar[Options] = ContextVar("running_options")


class Program(TyperGroup):
    """The whole command line, which ends quietly when its output pipe is closed."""

    def make_context(self, *args: Any, **settings: Any) -> Any:
        """Parse the arguments, and print help if asked."""
        with _quiet_without_reader():
            return super().make_context(*args, **settings)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments before the name of the command."""
        for parameter in self.get_params(ctx):
            spare_adapters(parameter)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> object:
        """Run a command."""
        with _quiet_without_reader():
            return super().invoke(ctx)


@contextmanager
def _quiet_without_reader() -> Iterator[None]:
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes stdout once more at exit, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(CLOSED_PIPE) from None


class Command(TyperCommand):
    """A command that understands old spellings, and whose errors name its options."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, old spellings of options included."""
        known = {option for parameter in self.params for option in parameter.opts}
        for parameter in self.get_params(ctx):
            spare_adapters(parameter)
        return super().parse_args(ctx, list(_present(args, known)))

    def invoke(self, ctx: Any) -> object:
        """Run the command."""
        token = running_options.set(Options(dict(_iter_options(self)), ctx.obj))
        try:
            return super().invoke(ctx)
        except (RankscopeError, typer.BadParameter) as error:
            error.message = in_options(error.message)
            raise
        finally:
            running_options.reset(token)


def in_options(message: str) -> str:
    """Return the message with each setting in backquotes as an option of the running command.

    The library says "choose another `out`", the command line "choose another --out". A setting that
    the command lacks is that of another one, as "analyze with --subspaces"; any other name stays as
    it is.
    """
    options = running_options.get(Options({}))

    def option(match: re.Match[str]) -> str:
        spelling = options[match[1]]
        return spelling if spelling.startswith("--") else match[0]

    return SETTING.sub(option, message)


def _present(arguments: Iterable[str], known: set[str]) -> Iterator[str]:
    """Replace each old spelling by the present one, if the command has only that."""
    was_device = False
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name not in known and OLD_SPELLINGS.get(name) in known:
            value = "local" if value == "cpu" else value
            was_device = name == "--device" and not equals
            yield OLD_SPELLINGS[name] + equals + value
        else:
            yield "local" if was_device and argument == "cpu" else argument
            was_device = False
