"""The record of a call: what it wrote into a results folder, and whether it is intact.

A record holds digests of the files that were written with it. It is removed before any of them is
replaced and written again after the last, so that a kill never leaves the record of one call with
the table of another. It also holds a digest of itself, since summaries are printed from it.
"""

from __future__ import annotations

import contextlib
import json
import math
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rankscope.durable import (
    GrowingFile,
    digest_of,
    digest_of_file,
    read_file,
    remove_file,
    safe_name,
    write_file,
)
from rankscope.errors import DAMAGE, RankscopeError, printable

FILES = "files"  # entry of a record: digest of each file, None for one that must not exist
DIGEST = "digest"  # entry of a record: digest of all others; older ones have none
WHEN = ("written", "command")  # entries that say when a record was written, not what it is of
# What an entry is, where it is there: a list of tables, or a table.
LISTS = ("runs", "skipped", "notes", "evaluations", "representations")
TABLES = (FILES, "options", "status", "breaks", "summary", "versions")
ADVICE = "run `rankscope analyze`, `evaluate` or `represent` again to rewrite it"


def read_record(path: Path) -> dict[str, Any]:
    """Content of a record; empty if there is none.

    Raises
    ------
    RankscopeError
        If it is damaged: not what was written.
    """
    with damage_named(path, ADVICE):
        try:
            record = json.loads(read_file(path))
        except FileNotFoundError:
            return {}
        _check(record)
    return dict(record)


@contextmanager
def damage_named(path: Path, advice: str) -> Iterator[None]:
    """Turn whatever reading a damaged file of results raises into one error that names it."""
    try:
        yield
    except RankscopeError:
        raise
    except (OSError, MemoryError, NotImplementedError, *DAMAGE) as error:
        why = printable(f"{type(error).__name__}: {error}", limit=120)
        message = f"is damaged ({why}): {advice}"
        raise RankscopeError(message, path=path, reason="damaged") from error


def _check(record: Any) -> None:
    """Refuse a record that is not as written or, without a digest, is not of the right shape."""
    if not isinstance(record, dict):
        raise TypeError("not a JSON object")
    if DIGEST in record and record[DIGEST] != _digest_of_record(record):
        raise ValueError("its digest does not match its content")
    for name in LISTS:
        if not all(isinstance(one, dict) for one in record.get(name, [])):
            raise TypeError(f"{name} is not a list of tables")
    for name in TABLES:
        if not isinstance(record.get(name, {}), dict):
            raise TypeError(f"{name} is not a table")
    if not all(safe_name(name) == name for name in record.get(FILES, {})):
        raise ValueError("it lists a file that is not beside it")
    if not all(type(step) is int for step in record.get("breaks", {}).values()):
        raise TypeError("breaks are not at steps")
    for run in record.get("runs", []):
        if not all(isinstance(run.get(name), str) for name in ("name", "path")):
            raise TypeError("a run has no name or no path")
        if not all(type(step) is int for step in run.get("restarts") or ()):
            raise TypeError("a run has restarts that are not at steps")


def _digest_of_record(record: Mapping[str, Any], *, without: Iterable[str] = ()) -> str:
    others = {name: value for name, value in record.items() if name not in (DIGEST, *without)}
    return digest_of(json.dumps(others).encode())


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


def intact_record(path: Path) -> dict[str, Any]:
    """Content of a record; empty unless it and every file of it are as they were written."""
    record = sound_record(path)
    return record if has_its_files(path, record) else {}


def sound_record(path: Path) -> dict[str, Any]:
    """Content of a record, whatever its files are; empty unless it is as it was written."""
    try:
        record = read_record(path)
    except RankscopeError:
        return {}
    return record if DIGEST in record else {}


def has_its_files(path: Path, record: Mapping[str, Any]) -> bool:
    """Whether every file of a record is as it was written."""
    files = record.get(FILES, {})
    return all(_digest_of(path.parent / name) == digest for name, digest in files.items())


def is_as_written(path: Path, name: str) -> bool:
    """Whether a file is the one that a record lists; also if the record does not list it."""
    files = read_record(path).get(FILES, {})
    return name not in files or _digest_of(path.parent / name) == files[name]


def write_with_record(
    path: Path, record: Mapping[str, Any], files: Mapping[str, bytes | GrowingFile | None]
) -> None:
    """Replace the files of a call, each in one step, and then its record.

    Parameters
    ----------
    path
        Path of the record; the files are in the same folder.
    record
        Anything that JSON can hold; an infinite number becomes the word ``inf``.
    files
        Content by name, or a file that was written with it; None removes a file. A file that would
        not change is left alone, so that make sees what is new; so is a record that would only say
        another time and command.

    Raises
    ------
    OSError
        If a file cannot be written; the files before it are complete, and there is no record.
    """
    new = {name: _digest(content) for name, content in files.items()}
    changed = [
        name
        for name, content in files.items()
        if _size_of(path.parent / name) != _size(content)
        or _digest_of(path.parent / name) != new[name]
    ]
    if changed:
        remove_file(path)
    for name in changed:
        content = files[name]
        if content is None:
            remove_file(path.parent / name)
        elif isinstance(content, GrowingFile):
            content.complete()
        else:
            write_file(path.parent / name, content)
    _write(path, {**record, FILES: new})


def write_entry(path: Path, name: str, value: Any) -> None:
    """Set one entry of a record that is there; the files stay as they are."""
    record = {**read_record(path), name: value}
    _write(path, record)


def _write(path: Path, record: Mapping[str, Any]) -> None:
    whole = json.loads(json.dumps(_plain(record), allow_nan=False))
    whole[DIGEST] = _digest_of_record(whole)
    known = sound_record(path)
    if not known or _digest_of_record(known, without=WHEN) != _digest_of_record(
        whole, without=WHEN
    ):
        write_file(path, json.dumps(whole, indent=2, allow_nan=False).encode())


def _plain(value: Any) -> Any:
    """The value as JSON allows it: the word ``inf``, and null for NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _digest(content: bytes | GrowingFile | None) -> str | None:
    if isinstance(content, GrowingFile):
        return content.digest
    return None if content is None else digest_of(content)


def _size(content: bytes | GrowingFile | None) -> int | None:
    if isinstance(content, GrowingFile):
        return content.tell()
    return None if content is None else len(content)


def _size_of(path: Path) -> int | None:
    """Size of a file, which takes less time to find than its digest; None if there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def _digest_of(path: Path) -> str | None:
    """Digest of a file; None if there is none, and empty if it cannot be read."""
    try:
        return digest_of_file(path)
    except FileNotFoundError:
        return None
    except OSError:
        return ""
