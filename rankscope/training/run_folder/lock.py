"""One trainer a run folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rankscope.errors import RankscopeError


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold ``run.lock`` of a run folder, which the system gives back however the process ends.

    Raises
    ------
    RankscopeError
        If another process holds it.
    """
    descriptor = os.open(folder / "run.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(descriptor, 32).decode().strip()
            raise RankscopeError(f"another trainer (pid {pid}) writes here", path=folder) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)
