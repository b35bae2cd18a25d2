"""Kill a process before its n-th change to the file system: for real, in a forked child.

What is loaded is loaded once, so that a trial costs what the killed work costs, and no start of
Python. Changes are counted where Python makes them, in `os`.
"""

from __future__ import annotations

import os
import signal
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass

CHANGES = ("write", "fsync", "mkdir", "rename", "replace", "link", "unlink", "rmdir", "ftruncate")
Action = Callable[[], object]


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code, negative for a signal, and what it wrote to stderr."""

    code: int
    said: str

    @property
    def is_killed(self) -> bool:
        """Whether it did not reach its end."""
        return self.code == -signal.SIGKILL


@dataclass(frozen=True)
class Child:
    """A forked child at work."""

    pid: int
    output: int

    def kill(self) -> None:
        """End it at once, wherever it is."""
        os.kill(self.pid, signal.SIGKILL)

    def ended(self) -> Ended:
        """Wait until it has ended."""
        with os.fdopen(self.output, "rb") as file:
            said = file.read().decode(errors="replace")
        _, status = os.waitpid(self.pid, 0)
        return Ended(os.waitstatus_to_exitcode(status), said)


def forked(action: Action) -> Child:
    """Start to do something in a child; an exception is its traceback and exit code 1."""
    ours, theirs = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # no other thread holds a lock here
        pid = os.fork()
    if pid:
        os.close(theirs)
        return Child(pid, ours)
    code = 1
    try:
        os.close(ours)
        os.dup2(theirs, 2)
        action()
        code = 0
    except SystemExit as ending:
        code = int(ending.code or 0)
    except BaseException:
        os.write(theirs, traceback.format_exc().encode())
    finally:
        os._exit(code)


def killed_before(change: int, action: Action) -> Ended:
    """Do something in a child that dies before its change of this number, counted from 0."""
    return forked(lambda: _dying(change, action)).ended()


def _dying(change: int, action: Action) -> None:
    made = 0

    def counted(name: str, function: Callable[..., object]) -> Callable[..., object]:
        def call(*given: object, **settings: object) -> object:
            nonlocal made
            if made == change:
                os.kill(os.getpid(), signal.SIGKILL)
            made += 1
            # What a killed process wrote stays: nothing has to reach the disk for that.
            return None if name == "fsync" else function(*given, **settings)

        return call

    for name in CHANGES:
        setattr(os, name, counted(name, getattr(os, name)))
    action()
