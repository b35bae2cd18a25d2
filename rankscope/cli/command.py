"""What all commands have in common: old spellings, and messages that name options."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any

import typer
from typer.core import TyperCommand

from rankscope.cli.exit_codes import CLOSED_PIPE
from rankscope.errors import RankscopeError

OLD_SPELLINGS = {"--format": "--layout", "--device": "--engine"}
SETTING = re.compile(r"`(\w+)(?:=True)?`")
running_options: ContextVar[Mapping[str, str]] = ContextVar("running_options")  # by parameter


class Command(TyperCommand):
    """A command whose errors name its options, and which ends quietly when its reader has left."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, old spellings of options included."""
        known = {option for parameter in self.params for option in parameter.opts}
        return super().parse_args(ctx, list(_present(args, known)))

    def invoke(self, ctx: Any) -> object:
        """Run the command."""
        options = {one.name or "": max(one.opts, key=len) for one in self.params}
        token = running_options.set(options)
        try:
            result: object = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except RankscopeError as error:
            error.message = in_options(error.message)
            raise
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(CLOSED_PIPE) from None
        finally:
            running_options.reset(token)


def in_options(message: str) -> str:
    """Show each setting that a message names in backquotes as the option of the running command.

    The library says "choose another `out`", the command line "choose another --out".
    """
    options = running_options.get({})

    def option(match: re.Match[str]) -> str:
        spelling = options.get(match[1], "")
        return spelling if spelling.startswith("--") else match[0]

    return SETTING.sub(option, message)


def _present(arguments: Iterable[str], known: set[str]) -> Iterable[str]:
    """The arguments with each old spelling that the command does not know as the present one."""
    was_device = False
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if name in OLD_SPELLINGS and name not in known:
            value = "local" if value == "cpu" else value
            was_device = name == "--device" and not equals
            yield OLD_SPELLINGS[name] + equals + value
            continue
        yield "local" if was_device and argument == "cpu" else argument
        was_device = False
