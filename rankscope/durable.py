"""Files and folders that are complete or not there, whenever the power goes.

A folder is written under a temporary name beside its place: every file is flushed to the disk,
``MANIFEST.json`` with their sizes and digests is the last of them, then the folder is renamed and
the renaming flushed too. The name alone therefore says that a folder is complete, and the
manifest says whether it still is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

MANIFEST = "MANIFEST.json"
_TEMPORARY = re.compile(r"\.tmp-.+-(?P<pid>\d+)")


def write_file(path: Path, content: bytes) -> None:
    """Write or replace one file in a single step; returns once it is on the disk.

    The folders above it are made where they are missing.

    Raises
    ------
    OSError
        If the disk is full or the folder is not writable; an earlier file is left as it was.
    """
    make_folder(path.parent)
    temporary = _temporary(path)
    try:
        _write(temporary, content)
        temporary.replace(path)
    except BaseException:  # an interruption too
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _flush(path.parent)


def require_writable(folder: Path) -> None:
    """Make a folder and check that files can be written there, before the work starts.

    Raises
    ------
    OSError
        If they cannot.
    """
    write_file(folder / ".writable", b"")
    (folder / ".writable").unlink()


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``path`` once the block has ended without an error.

    Nothing may be at ``path`` but an empty folder. What the block writes it flushes itself, as
    `write_file` does.
    """
    path = path.absolute()
    make_folder(path.parent)
    temporary = _temporary(path)
    try:
        temporary.mkdir()
        yield temporary
        _flush(temporary)
        temporary.rename(path)
    except BaseException:  # an interruption too
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _flush(path.parent)


def write_folder(path: Path, files: Mapping[str, bytes], *, kind: str) -> None:
    """Write or replace a folder in a single step, its manifest last.

    Parameters
    ----------
    path
        Where the folder will be. If a folder with the same content stands there, it is kept.
    files
        Relative path to content; a path may name a subfolder.
    kind
        The manifest's ``format``, such as ``rankscope-checkpoint-1``.
    """
    manifest = {"format": kind, "files": {name: _entry(files[name]) for name in files}}
    if path.exists() and damage(path) is None and read_manifest(path) == manifest:
        return
    temporary = _temporary(path)
    try:
        for name, content in files.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            _write(temporary / name, content)
        _write(temporary / MANIFEST, json.dumps(manifest, indent=1).encode())
        for folder in {(temporary / name).parent for name in files} | {temporary}:
            _flush(folder)
        _replace_folder(temporary, path)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def write_listed_file(path: Path, content: bytes, *, kind: str) -> None:
    """Write or replace a file of a folder that grows, and list it in the folder's manifest.

    At no time does the manifest list a file with another digest than it has.
    """
    folder, entry = path.parent, _entry(content)
    listed: dict[str, object] = {}
    with contextlib.suppress(FileNotFoundError, ValueError):
        listed = dict(read_manifest(folder)["files"])  # type: ignore[call-overload]
        if listed.pop(path.name, entry) != entry:
            _write_manifest(folder, listed, kind)
    write_file(path, content)
    _write_manifest(folder, {**listed, path.name: entry}, kind)


def read_manifest(folder: Path) -> dict[str, object]:
    """Return the manifest of a folder; OSError or ValueError if there is none."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise ValueError(f"{MANIFEST} lists no files")
    return manifest


def damage(folder: Path) -> str | None:
    """Say what a folder lacks compared with its manifest, None if nothing."""
    try:
        entries = read_manifest(folder)["files"]
        for name, entry in dict(entries).items():  # type: ignore[call-overload]
            if _entry((folder / name).read_bytes()) != entry:
                return f"{name} is not what was written"
    except (OSError, ValueError) as error:
        return str(getattr(error, "strerror", None) or error)
    return None


def append(path: Path, content: bytes) -> None:
    """Add to a file, without waiting for the disk."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        _write_all(descriptor, content)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Make a folder and those above it, so that they last."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        _flush(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder so that a half-removed one is never seen under its name."""
    doomed = _temporary(path)
    path.rename(doomed)
    shutil.rmtree(doomed)


def sweep(folder: Path) -> None:
    """Remove what writers that are no more left half-written."""
    for entry in folder.iterdir() if folder.is_dir() else ():
        match = _TEMPORARY.fullmatch(entry.name)
        if match and not _is_alive(int(match["pid"])):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()


def safe_name(name: str) -> str:
    """Name of a file or folder for any text: no two texts share one, and none is a path."""
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[-60:] or "run"
    if slug == name:
        return slug
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return f"{slug}-{digest}"


def _write_manifest(folder: Path, listed: dict[str, object], kind: str) -> None:
    files = {name: listed[name] for name in sorted(listed) if (folder / name).exists()}
    write_file(folder / MANIFEST, json.dumps({"format": kind, "files": files}, indent=1).encode())


def _entry(content: bytes) -> dict[str, object]:
    digest = hashlib.blake2b(content, digest_size=32).hexdigest()
    return {"bytes": len(content), "blake2b": digest}


def _temporary(path: Path) -> Path:
    return path.with_name(f".tmp-{path.name}-{os.getpid()}")


def _write(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        _write_all(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    remaining = memoryview(content)
    while remaining:
        remaining = remaining[os.write(descriptor, remaining) :]


def _flush(folder: Path) -> None:
    """Flush a folder's entries: without it a finished renaming may be lost."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace_folder(temporary: Path, path: Path) -> None:
    old = _temporary(path.with_name(f"{path.name}-old"))
    if path.exists():
        path.rename(old)
    temporary.rename(path)
    _flush(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    if pid == os.getpid():  # a number used again: this process has not written anything yet
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
