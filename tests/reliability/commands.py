"""The command line in a forked child: as a program of its own, without the seconds of a start."""

from __future__ import annotations

import os
import resource
import sys
import warnings
from collections.abc import Callable

from rankscope.cli.app import main
from tests.reliability.killing import Child, Ended, forked


def ended_command(*arguments: str, most_bytes: int | None = None) -> Ended:
    """Run ``rankscope`` with these arguments; of files of at most so many bytes, if that is given.

    A longer write fails as on a full disk.
    """
    return started_command(*arguments, most_bytes=most_bytes).ended()


def started_command(
    *arguments: str,
    most_bytes: int | None = None,
    before: Callable[[], object] = lambda: None,
) -> Child:
    """Start ``rankscope`` with these arguments, after ``before`` was called in its process."""

    def program() -> None:
        warnings.resetwarnings()
        sys.argv, sys.dont_write_bytecode = ["rankscope", *arguments], True
        sys.stdout, sys.stderr = open(os.devnull, "w"), os.fdopen(2, "w", 1)  # noqa: SIM115, PTH123
        before()
        if most_bytes is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
        main()

    return forked(program)
