"""The command line in this process, under watch: what it printed, and what it opened."""

from __future__ import annotations

import os
import signal
import stat
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from rankscope.analysis import engines
from rankscope.cli import main
from tests.analysis.series import Inline

_watched: list[str] = []  # by the hook below, which cannot be removed
_watching = False


class Blocked(BaseException):
    """A FIFO was opened so that the process would wait for ever."""


@dataclass(frozen=True)
class Called:
    """What a call did."""

    code: int
    out: str
    err: str
    opened: tuple[str, ...]


def called(
    patch: pytest.MonkeyPatch, captured: pytest.CaptureFixture[str], *arguments: object
) -> Called:
    """Run the command line; an exception that it lets through is a failure of the test."""
    patch.setattr(signal, "signal", lambda *_: None)
    patch.setattr(warnings, "showwarning", warnings.showwarning)
    patch.setattr(engines, "ENGINES", {"local": lambda _jobs, _start: Inline()})
    patch.setattr(sys, "argv", ["rankscope", *map(str, arguments)])
    captured.readouterr()
    with opened_files() as opened, pytest.raises(SystemExit) as ended:
        main()
    shown = captured.readouterr()
    return Called(int(ended.value.code or 0), shown.out, shown.err, tuple(opened))


@contextmanager
def opened_files() -> Iterator[list[str]]:
    """The real path of every file that is opened within the block."""
    global _watching
    _watched.clear()
    _watching = True
    try:
        yield _watched
    finally:
        _watching = False


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    path = arguments[0] if event == "open" and arguments else None
    if not _watching or not isinstance(path, (str, bytes, os.PathLike)):
        return
    real = os.path.realpath(os.fsdecode(path))
    _watched.append(real)
    flags = arguments[2]
    if isinstance(flags, int) and not flags & os.O_NONBLOCK and _is_fifo(real):
        raise Blocked(real)


def _is_fifo(path: str) -> bool:
    try:
        return stat.S_ISFIFO(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return False


sys.addaudithook(_hook)
