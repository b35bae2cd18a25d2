"""Laying out stand-ins: files of the names and sizes of objects elsewhere, without content."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from rankscope import durable
from rankscope.checkpoints.remote.listings import Objects
from rankscope.checkpoints.remote.objects import Entry
from rankscope.platforms import can_be_name

LONGEST_NAME = 255  # bytes
LARGEST = 2**43  # bytes of a file that common file systems can have


def can_be_path(parts: Iterable[str]) -> bool:
    """Whether the parts of an object's name can be folders and a file that stay below their own."""
    known = tuple(parts)
    return bool(known) and all(
        part not in ("", ".", "..")
        and not any(c in part for c in "/\\\0")
        and can_be_name(part)
        and len(part.encode(errors="surrogatepass")) <= LONGEST_NAME
        for part in known
    )


def can_be_file(name: str, entry: Entry) -> bool:
    """Whether an object can have a stand-in: by its name and the size that is claimed."""
    return 0 <= entry.size <= LARGEST and can_be_path(name.split("/"))


def lay_out(home: Path, objects: Objects) -> None:
    """Make the stand-ins that are missing or of another content."""
    for name, entry in objects.items():
        path, is_right = home / name, False
        with contextlib.suppress(OSError):
            status = path.lstat()
            is_right = (status.st_size, int(status.st_mtime)) == (entry.size, entry.stamp)
        if not is_right:
            durable.hollow_file(path, size=entry.size, modified=entry.stamp)


def remove_others(home: Path, objects: Objects) -> None:
    """Remove stand-ins of what is not there any more."""
    for folder, folders, names in os.walk(home, topdown=False):
        for name in names:
            path = Path(folder, name)
            if path.relative_to(home).as_posix() not in objects and not durable.is_temporary(name):
                path.unlink(missing_ok=True)
        for name in folders:
            with contextlib.suppress(OSError):  # it is not empty
                Path(folder, name).rmdir()
