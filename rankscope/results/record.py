"""The record of a call: what it wrote into a results folder, and whether it is intact.

A record holds digests of the files that were written with it. It is removed before any of them is
replaced and written again after the last, so that a kill never leaves the record of one call with
the table of another.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import platform
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rankscope.durable import remove_file, write_file

FILES = "files"  # entry of a record: digest of each file, None for one that must not exist


def read_record(path: Path) -> dict[str, Any]:
    """Content of a record; empty if there is none or it is damaged."""
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def provenance(packages: Iterable[str]) -> dict[str, Any]:
    """When and by which command something is written, and installed package versions."""
    versions = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    written = datetime.now(UTC).isoformat(timespec="seconds")
    return {"written": written, "command": sys.argv, "versions": versions}


def json_lines(records: Iterable[Mapping[str, Any]]) -> bytes:
    """One JSON object per line."""
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def is_intact(path: Path) -> bool:
    """Whether every file of a record is as it was written."""
    files = read_record(path).get(FILES)
    if not isinstance(files, dict):
        return False
    return all(_digest_of(path.parent / name) == digest for name, digest in files.items())


def write_with_record(
    path: Path, record: Mapping[str, Any], files: Mapping[str, bytes | None]
) -> None:
    """Replace the files of a call, each in one step, and then its record.

    Parameters
    ----------
    path
        Path of the record; the files are in the same folder.
    record
        Anything that JSON can hold; an infinite number becomes the word ``inf``.
    files
        Content by name; None removes a file. A file that would not change is left alone, so that
        make sees what is new.

    Raises
    ------
    OSError
        If a file cannot be written; the files before it are complete, and there is no record.
    """
    new = {name: None if content is None else _digest(content) for name, content in files.items()}
    changed = [name for name, digest in new.items() if _digest_of(path.parent / name) != digest]
    if changed:
        remove_file(path)
    for name in changed:
        content = files[name]
        if content is None:
            remove_file(path.parent / name)
        else:
            write_file(path.parent / name, content)
    listing = json.dumps(_plain({**record, FILES: new}), indent=2, allow_nan=False).encode()
    if not path.is_file() or path.read_bytes() != listing:
        write_file(path, listing)


def _plain(value: Any) -> Any:
    """The value as JSON allows it: the word ``inf``, and null for NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _digest_of(path: Path) -> str | None:
    """Digest of a file; None if there is none, and empty if it cannot be read."""
    try:
        return _digest(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError:
        return ""
