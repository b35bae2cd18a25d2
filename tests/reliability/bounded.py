"""Runs something in a child process whose processor time and memory are limited."""

from __future__ import annotations

import gc
import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path

from rankscope.errors import RankscopeError

SECONDS, BYTES = 2, 2**30


def outcome(work: Callable[[], object], *, seconds: int = SECONDS, more: int = BYTES) -> str:
    """The reason code of its `RankscopeError`, ``done``, or how the child ended otherwise.

    Processes that share a core and its caches take up to twice their time, so on a busy machine
    the limit is twice as high. A fork has used no processor time yet; its memory may grow by
    ``more`` beyond that of now.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        gc.freeze()  # else each collection would go through what all tests before have left, too
        resource.setrlimit(resource.RLIMIT_CPU, (seconds * (1 + _is_busy()),) * 2)
        resource.setrlimit(resource.RLIMIT_AS, (_taken() + more,) * 2)
        os.write(writing, _ended(work).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        said = file.read().decode()
    _, status = os.waitpid(child, 0)
    return said or f"ended by signal {os.waitstatus_to_exitcode(status)}"


def _ended(work: Callable[[], object]) -> str:
    try:
        work()
    except RankscopeError as error:
        return error.reason
    except BaseException as error:
        print(repr(error), file=sys.stderr)
        return type(error).__name__
    return "done"


def _is_busy() -> bool:
    """Whether no core was free in the last minute, or none is now: the load follows slowly."""
    last_minute, *_, running, _ = Path("/proc/loadavg").read_text().split()
    now = int(running.partition("/")[0])
    return max(float(last_minute), now) >= (os.cpu_count() or 1)


def _taken() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE")
