"""Where links in a checkpoint may lead: within the folder given, or into a cache of the hub.

Whoever made a checkpoint chose where its links lead, and what they lead to would be measured, and
its numbers published, as part of it. The folder given may itself be a link, since the user chose
that.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from rankscope.errors import RankscopeError

OUTSIDE = "is a link that leads out of the folder given, which is not followed"
RESUMED = re.compile(r"optim|scheduler|scaler|rng|random_states|training_args")  # from these only
# Without ``..``, and without links: the folder, and what nothing in it may lead out of.
_bounds: ContextVar[tuple[str, str] | None] = ContextVar("_bounds", default=None)


@contextmanager
def links_within(folder: Path, root: Path | None) -> Iterator[None]:
    """Let no file below ``folder`` be opened through a link that leads out of ``root``."""
    bounds = None if root is None else (_written_out(folder), os.path.realpath(root))
    token = _bounds.set(bounds)
    try:
        yield
    finally:
        _bounds.reset(token)


def check_link(path: str | Path) -> None:
    """Check that a file which is about to be opened is where it may be.

    Raises
    ------
    RankscopeError
        With the reason ``outside``, if a link leads there from within the bounds.
    """
    bounds = _bounds.get()
    if bounds is None or not _is_within(_written_out(path), bounds[0]):
        return
    if _is_out(path, bounds[1]):
        raise RankscopeError(f"{OUTSIDE}: put the file there instead", path=path, reason="outside")


def check_links(folder: Path, root: Path | None) -> None:
    """Check the files of a checkpoint for programs that open these themselves.

    What only a training reads may lead anywhere.

    Raises
    ------
    RankscopeError
        With the reason ``outside``, if one is a link that leads out of ``root``.
    OSError
        If the folder cannot be listed.
    """
    if root is None or not folder.is_dir():
        return
    with links_within(folder, root):
        for path in (*folder.iterdir(), *folder.glob("adapter/*")):
            if RESUMED.match(path.name) is None:
                check_link(path)


def leads_out(path: str | Path, root: Path) -> bool:
    """Whether a path, its links followed, is neither below ``root`` nor in a cache of the hub."""
    return _is_out(path, os.path.realpath(root))


def _is_out(path: str | Path, real_root: str) -> bool:
    real = os.path.realpath(path)
    return not _is_within(real, real_root) and not _is_blob(Path(real))


def is_below(path: str | Path, folder: Path) -> bool:
    """Whether a path is that of a folder or leads into it, before any link is followed."""
    return _is_within(_written_out(path), _written_out(folder))


def _written_out(path: str | Path) -> str:
    """The path from the root on, without ``..``; its links are not followed."""
    return os.path.abspath(path)  # noqa: PTH100 (a Path keeps ``..``)


def _is_within(path: str, folder: str) -> bool:
    """Whether a path is a folder or below it, both written out."""
    # As text: for every file that is opened, and Paths take five times as long to compare.
    path, folder = os.path.normcase(path), os.path.normcase(folder)
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _is_blob(real: Path) -> bool:
    """Whether a path is that of a file as caches of the hub keep them."""
    return real.parent.name == "blobs" and (real.parent.parent / "snapshots").is_dir()
