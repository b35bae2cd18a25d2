"""A folder that one process at a time writes into."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rankscope.durable import naming, remove_file, write_file
from rankscope.errors import RankscopeError


def lock_files(kind: str) -> tuple[str, str]:
    """Names of the file that is locked and of the one that says by which process."""
    return f"{kind}.lock", f"{kind}.pid"


@contextmanager
def locked(folder: Path, *, kind: str, who: str, patience: float = 0.0) -> Iterator[None]:
    """Hold a lock of a folder; the system releases it however the process ends.

    The number of the process is in a file of its own: Windows lets nobody read a locked file.

    Parameters
    ----------
    kind
        Of the lock, by which its files are named: ``run.lock`` and ``run.pid``.
    who
        What writes here, for the message, such as ``trainer``.
    patience
        Seconds to wait for another process that holds it.

    Raises
    ------
    RankscopeError
        If another process holds it.
    OSError
        If the folder cannot be written.
    """
    from filelock import FileLock, Timeout  # comes with torch

    name, holder_name = lock_files(kind)
    lock, holder = FileLock(folder / name), folder / holder_name
    with naming(folder / name):
        try:
            lock.acquire(timeout=patience)
        except Timeout:
            message = f"another {who}{_pid(holder)} writes here"
            raise RankscopeError(message, path=folder) from None
    try:
        write_file(holder, f"{os.getpid()}\n".encode())
        yield
    finally:
        with suppress(OSError):
            remove_file(holder)
        lock.release()


def _pid(holder: Path) -> str:
    """The process that holds a lock, for a message; nothing if it has not said so yet."""
    try:
        return f" (pid {int(holder.read_bytes()[:20])})"
    except (OSError, ValueError):
        return ""
