"""The state of a file: what shows that it was written to since its header was read.

A trainer may rewrite, cut or remove a file at any time. What a header says about where tensors are
holds only for the state that the file had then.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from rankscope.errors import RankscopeError

CHANGED = "changed-while-reading"
# Size; time of the last change of the content; and of anything, which no program can set back. Not
# the inode: file systems over a network may give another one each time.
State = tuple[int, int, int]
FileStates = tuple[tuple[str, State | None], ...]  # by path; None for a file that was not there

_planned: ContextVar[Mapping[str, State | None] | None] = ContextVar("_planned", default=None)


def state_of(path: str | Path) -> State | None:
    """The state of a file; None if it is not there.

    Shows whether the file was written to, within the resolution of the file system's clock.
    """
    try:
        status = os.stat(path)  # noqa: PTH116 (once per matrix, and a Path takes twice as long)
    except (OSError, ValueError):  # a name in a file may be too long, or no name at all
        return None
    return _state(status)


def states_of_files(paths: Iterable[str | Path]) -> FileStates:
    """Each of these files with its state."""
    return tuple((str(path), state_of(path)) for path in paths)


def states_below(path: Path) -> dict[str, State]:
    """The state of a file, or of every file in a folder and the folders in it.

    What vanishes meanwhile, as checkpoints do that a training no longer keeps, is left out.
    """
    # As text, which is faster where a run has many checkpoints; a walk of "." begins with "./".
    folders = ((folder.removeprefix("./"), names) for folder, _, names in os.walk(str(path)))
    files = sorted(
        name if folder == "." else os.path.join(folder, name)  # noqa: PTH118
        for folder, names in folders
        for name in names
    )
    states = {one: state_of(one) for one in files or [str(path)]}
    return {one: state for one, state in states.items() if state is not None}


@contextmanager
def as_planned(files: Iterable[tuple[str, State | None]]) -> Iterator[None]:
    """Within the block, let `unchanged` refuse these files in any other state than this."""
    token = _planned.set(dict(files))
    try:
        yield
    finally:
        _planned.reset(token)


@contextmanager
def unchanged(path: str | Path, descriptor: int) -> Iterator[None]:
    """Check that an open file is as it was planned, before and after it is read.

    A file that was removed meanwhile is still there for a process that has it open.

    Raises
    ------
    RankscopeError
        With the reason ``changed-while-reading``.
    """
    planned = (_planned.get() or {}).get(str(path))
    if planned is not None and _state(os.fstat(descriptor)) != planned:
        raise changed(path)
    yield
    # Removing it changes the last time.
    if planned is not None and _state(os.fstat(descriptor))[:2] != planned[:2]:
        raise changed(path)


def changed(path: str | Path) -> RankscopeError:
    """The error about a file that was written to."""
    message = "was written to while it was read: run it again"
    return RankscopeError(message, path=path, reason=CHANGED)


def _state(status: os.stat_result) -> State:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
