"""Files that are complete or not there, and names that are safe in a path."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> None:
    """Write a whole file under a temporary name, then rename: readers see all of it or none.

    Raises
    ------
    OSError
        If the disk is full or the folder may not be written; an earlier file is left as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{path.name}-{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def require_writable(folder: Path) -> None:
    """Make a folder and see that files can be written there: before the work, not only after it.

    Raises
    ------
    OSError
        If they cannot.
    """
    write_atomically(folder / ".writable", b"")
    (folder / ".writable").unlink()


def safe_name(name: str) -> str:
    """Name of a file or folder for any text: no two texts have the same, and none is a path."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[-60:] or "run"
    if slug == name:
        return slug
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return f"{slug}-{digest}"
