"""The command line in a forked child: as a program of its own, without the seconds of a start."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

from rankscope.cli.app import main
from tests.reliability.killing import Child, Ended, forked

UNSEEN = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)


def finished_command(
    *arguments: object, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``rankscope`` with these arguments; what it printed, and its exit code."""
    with tempfile.TemporaryFile() as out:
        words = [*map(str, arguments)]
        ended = started_command(*words, cwd=cwd, output=out.fileno()).ended()
        out.seek(0)
        return subprocess.CompletedProcess(words, ended.code, out.read().decode(), ended.said)


def ended_command(*arguments: str, most_bytes: int | None = None) -> Ended:
    """Run ``rankscope`` with these arguments; of files of at most so many bytes, if that is given.

    A longer write fails as on a full disk.
    """
    return started_command(*arguments, most_bytes=most_bytes).ended()


def started_command(
    *arguments: str,
    most_bytes: int | None = None,
    before: Callable[[], object] = lambda: None,
    cwd: Path | None = None,
    output: int | None = None,
) -> Child:
    """Start ``rankscope`` with these arguments, after ``before`` was called in its process.

    What it prints goes to the file descriptor ``output`` of its process (2: to what it said), or
    nowhere. ``before`` must not put another file there: Python's stream has looked at the first.
    """

    def program() -> None:
        warnings.resetwarnings()
        for category in UNSEEN:  # as Python does by itself
            warnings.simplefilter("ignore", category)
        sys.argv, sys.dont_write_bytecode = ["rankscope", *arguments], True
        os.dup2(os.open(os.devnull, os.O_WRONLY) if output is None else output, 1)
        sys.stdout = os.fdopen(1, "w", 1, encoding="utf-8")
        sys.stderr = os.fdopen(2, "w", 1, encoding="utf-8", errors="backslashreplace")
        os.chdir(cwd or Path.cwd())
        before()
        if most_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
        main()

    return forked(program)
