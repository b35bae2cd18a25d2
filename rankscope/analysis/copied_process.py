"""A process of workers that is a copy of this one, which has loaded everything they need.

A separate program would load it again, which takes longer than a few hundred small matrices.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import signal
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from rankscope.platforms import FORKS

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# glibc would return the memory of every larger matrix to the system, and fault it in for the next.
KEPT_BYTES, LEAST_KEPT = 2**27, 2**25  # some versions take no more than the latter
TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # as mallopt numbers them
STANDARD = (0, 1, 2)  # input and output, and what is said of errors


@dataclass(frozen=True)
class CopiedProcess:
    """A child of this process, which leads a process group."""

    pid: int

    def wait(self) -> None:
        """Wait until it has ended."""
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def may_be_copied() -> bool:
    """Whether a copy would work: this process and its linear algebra have a single thread.

    A lock that another thread holds would stay locked in the copy forever. Loads numpy.
    """
    if not FORKS:
        return False
    import rankscope.analysis.worker  # noqa: F401  # what would be copied, and its threads

    try:
        threads = list(Path("/proc/self/task").iterdir())
    except OSError:
        return False
    return len(threads) == 1 and all(os.environ.get(name) == "1" for name in ONE_THREAD)


def copied(connections: list[int]) -> CopiedProcess:
    """Start a copy that answers on these file descriptors, and keeps no other open."""
    pid = os.fork()
    if not pid:
        gc.freeze()  # looking for garbage among them would write into objects that both share
        _work(connections)
    with contextlib.suppress(OSError):  # it has done so itself, or has ended
        os.setpgid(pid, pid)
    return CopiedProcess(pid)


def _work(connections: list[int]) -> NoReturn:
    try:
        from rankscope.analysis.worker import serve

        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        # An end of a connection that stays open here would hide that its owner has died.
        for descriptor in [int(each.name) for each in Path("/proc/self/fd").iterdir()]:
            if descriptor not in (*STANDARD, *connections):
                with contextlib.suppress(OSError):
                    os.close(descriptor)
        _keep_memory()
        serve(connections)
    except Exception:  # a bug; shown as a program of its own would
        traceback.print_exc()
    finally:
        os._exit(1)  # whatever happens, nothing of the caller's goes on here


def _keep_memory() -> None:
    """Set what the environment of a separate program would set."""
    with contextlib.suppress(AttributeError, OSError):  # another library than glibc
        settle = ctypes.CDLL(None).mallopt
        for name in (TRIM_THRESHOLD, MMAP_THRESHOLD):
            if not settle(name, KEPT_BYTES):
                settle(name, LEAST_KEPT)
