"""Runs something in a child process whose processor time and memory are limited."""

from __future__ import annotations

import gc
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rankscope.errors import RankscopeError

SECONDS, BYTES = 2, 2**30
INTERRUPTED = 130


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


def seconds_after_interrupt(work: Callable[[], object], *, after: float = 0.2) -> float:
    """Processor time that something takes to end once Ctrl-C is pressed; 0.0 if it was done before.

    Parameters
    ----------
    after
        Seconds of processor time that it has taken when Ctrl-C is pressed.
    """
    child = os.fork()
    if not child:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os._exit(_code_of(work))
    before = 0.0
    while before < after and not _is_zombie(child):
        time.sleep(0.01)
        before = _processor_time(child)
    os.kill(child, signal.SIGINT)
    _, status, used = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, INTERRUPTED), code
    return used.ru_utime + used.ru_stime - before if code else 0.0


def _code_of(work: Callable[[], object]) -> int:
    try:
        work()
    except KeyboardInterrupt:
        return INTERRUPTED
    except RankscopeError:
        return 0
    return 0


def _stat(process: int) -> list[str]:
    """What the kernel says of a process, from its state on."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()


def _is_zombie(process: int) -> bool:
    return _stat(process)[0] == "Z"


def _processor_time(process: int) -> float:
    return sum(map(int, _stat(process)[11:13])) / os.sysconf("SC_CLK_TCK")


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
