"""Files and folders that are either complete or absent, even after a power failure.

Everything is written under a temporary name beside its destination, flushed to the disk and then
renamed, and the renaming is flushed too. A folder's name alone therefore says that it is complete.
Those of `write_folder` also hold ``MANIFEST.json``, written last, with the size and digest of every
file, which shows whether the folder is still what was written.

What a killed process leaves under a temporary name is removed by the next one that writes into the
same folder, and by `sweep`; `rankscope.writers` says when a process counts as dead. An error of the
disk names the file that was to be written.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from rankscope.platforms import (
    BINARY,
    DEVICES,
    FLUSHES_FOLDERS,
    READ_REGULAR,
    flush,
    replace,
)
from rankscope.writers import MARK, is_abandoned, own_mark

MANIFEST = "MANIFEST.json"
DIGEST_SIZE = 16  # bytes of the digest of a single file
# As `_temporary` makes them; `.old` marks a folder that was moved aside for its successor.
_TEMPORARY = re.compile(rf"\.tmp-(?P<name>.+)-(?P<mark>{MARK})-\d+(?P<old>\.old)?")
_ANEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | BINARY
_numbers = itertools.count()  # so that two threads never write the same temporary file


def write_file(path: Path, content: bytes, *, wait: bool = True) -> None:
    """Write or replace one file in a single step; returns once it is on the disk.

    Missing parent folders are made.

    Parameters
    ----------
    wait
        Whether to wait for the disk. Without, a loss of power may leave a file under its name that
        is not complete; its reader must notice that, and must be able to do without it.

    Raises
    ------
    OSError
        If the disk is full or the folder is not writable; an existing file is left as it was.
    """
    with naming(path):
        if wait:
            make_folder(path.parent)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(path)
        try:
            _write(temporary, content, wait=wait)
            replace(temporary, path)
        except BaseException:  # an interruption too
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        if wait:
            _flush(path.parent)


class GrowingFile:
    """A file that is written piece by piece, and has its name only when it is complete.

    For a ``with`` block: a file that is not completed by its end is removed. It can be given to
    what writes to an open file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size = 0
        self._digest = hashlib.blake2b(digest_size=DIGEST_SIZE)
        self._descriptor: int | None = None
        with naming(path):
            make_folder(path.parent)
            self._temporary = _temporary(path)
            self._descriptor = os.open(self._temporary, _ANEW, 0o666)

    def __enter__(self) -> GrowingFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()
        with contextlib.suppress(OSError):
            self._temporary.unlink(missing_ok=True)

    @property
    def digest(self) -> str:
        """Digest of what was written so far."""
        return self._digest.hexdigest()

    @property
    def closed(self) -> bool:
        """Whether nothing more can be written."""
        return self._descriptor is None

    def write(self, content: bytes) -> int:
        """Write a piece; returns its size."""
        assert self._descriptor is not None
        with naming(self.path):
            _write_all(self._descriptor, content)
        size = memoryview(content).nbytes
        self._digest.update(content)
        self._size += size
        return size

    def tell(self) -> int:
        """The size so far."""
        return self._size

    def flush(self) -> None:
        """Nothing: no piece is held back."""

    def complete(self) -> None:
        """Give the file its name, or replace what has it; returns once that is on the disk."""
        assert self._descriptor is not None
        with naming(self.path):
            flush(self._descriptor)
            self._close()
            replace(self._temporary, self.path)
            _flush(self.path.parent)

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None


def scratch_file(folder: Path) -> BinaryIO:
    """A file without a name, to write and to read, which ends with this process or before.

    Where an open file cannot lose its name, it has a temporary one.
    """
    with naming(folder):
        path = _temporary(folder / "scratch")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | BINARY, 0o600)
        with contextlib.suppress(OSError):
            path.unlink()
    return os.fdopen(descriptor, "w+b")


def hollow_file(path: Path, *, size: int, modified: int) -> None:
    """Write or replace a file of some size in a single step, without content or blocks of the disk.

    It is not flushed: it stands for something else, and can be made again.

    Parameters
    ----------
    modified
        The time of its last change, in seconds.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(path)
        try:
            with temporary.open("wb") as file:
                file.truncate(size)
            os.utime(temporary, (modified, modified))
            replace(temporary, path)
        except BaseException:  # an interruption too
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise


def read_file(path: Path) -> bytes:
    """All bytes of a file.

    Raises
    ------
    OSError
        If it cannot be read; also if it is a pipe or a device, which might never end.
    """
    with _open_regular(path) as file:
        return file.read()


def digest_of(content: bytes) -> str:
    """Digest of the content of a file."""
    return hashlib.blake2b(content, digest_size=DIGEST_SIZE).hexdigest()


def digest_of_file(path: Path) -> str:
    """Digest of a file, which is not read into memory as a whole; raises as `read_file`."""
    with _open_regular(path) as file:
        found = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=DIGEST_SIZE))
    return found.hexdigest()


def _open_regular(path: Path) -> BufferedReader:
    descriptor = os.open(path, READ_REGULAR)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(number, "is not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def require_writable(folder: Path) -> None:
    """Make a folder and check that files can be written to it, before the work starts.

    Raises
    ------
    OSError
        If they cannot.
    """
    with naming(folder):
        make_folder(folder)
        probe = _temporary(folder / "writable")  # a kill leaves no more than `sweep` removes
        _write(probe, b"")
        probe.unlink()


def rename_folder(path: Path, to: Path) -> None:
    """Give a folder a name that is free; returns once that is on the disk.

    Raises
    ------
    OSError
        If it is gone, or something has the name by then.
    """
    with naming(to):
        replace(path, to)
        _flush(to.parent)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes ``path`` when the block ends without an error.

    The block must flush the files that it writes, as `write_file` does.

    Raises
    ------
    OSError
        If the folder cannot be written, or ``path`` is anything but an empty folder by then.
    """
    path = path.absolute()
    with naming(path):
        temporary = _temporary_folder(path)
        try:
            yield temporary
            _flush(temporary)
            replace(temporary, path)
        except BaseException:  # an interruption too
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _flush(path.parent)


def write_folder(path: Path, files: Mapping[str, bytes], *, kind: str) -> None:
    """Write or replace a folder in a single step, its manifest last.

    Parameters
    ----------
    path
        Where the folder will be. An undamaged folder with the same content is kept.
    files
        Content by relative path, which may name a subfolder.
    kind
        The manifest's ``format``, such as ``rankscope-checkpoint-1``.

    Raises
    ------
    OSError
        If the folder cannot be written; an existing one is left as it was.
    """
    manifest = {"format": kind, "files": {name: _entry(files[name]) for name in files}}
    if path.exists() and damage(path) is None and read_manifest(path) == manifest:
        return
    whole = {**files, MANIFEST: json.dumps(manifest, indent=1).encode()}  # in this order
    with naming(path):
        temporary = _temporary_folder(path)
        try:
            for name, content in whole.items():
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                with naming(path / name):
                    _write(temporary / name, content)
            for folder in {(temporary / name).parent for name in files} | {temporary}:
                _flush(folder)
            _replace_folder(temporary, path)
        except BaseException:  # an interruption too
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
    """Return the manifest of a folder; OSError or ValueError if it has none, or a damaged one."""
    try:
        manifest = json.loads(read_file(folder / MANIFEST))
    except RecursionError:
        raise ValueError(f"{MANIFEST} is nested too deeply") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("files"), dict):
        raise ValueError(f"{MANIFEST} lists no files")
    return manifest


def damage(folder: Path) -> str | None:
    """Return how a folder differs from its manifest, in words; None if it does not."""
    try:
        entries = read_manifest(folder)["files"]
        for name, entry in dict(entries).items():  # type: ignore[call-overload]
            path = folder / name
            if ".." in path.parts or Path(name).is_absolute():
                return f"its {MANIFEST} lists a file that is not in it"
            is_pipe = path.exists() and not path.is_file()  # which would never end
            if is_pipe or _entry(path.read_bytes()) != entry:
                return f"{name} is not what was written"
    except (OSError, ValueError) as error:
        return str(getattr(error, "strerror", None) or error)
    return None


def append(path: Path, content: bytes) -> None:
    """Append to a file, without waiting for the disk: `flush_file` does that."""
    with naming(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | BINARY, 0o666)
        try:
            _write_all(descriptor, content)
        finally:
            os.close(descriptor)


def flush_file(path: Path) -> None:
    """Wait until what was appended to a file is on the disk, and its name, which may be new."""
    _flush(path)
    _flush(path.parent)


def make_folder(path: Path) -> None:
    """Make a folder and its parents, each flushed to the disk."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        _flush(path.parent)


def remove_folder(path: Path) -> None:
    """Remove a folder so that a half-removed one is never seen under its name."""
    doomed = _temporary(path)
    path.rename(doomed)
    _flush(path.parent)
    shutil.rmtree(doomed)


def remove_file(path: Path) -> None:
    """Remove a file, if it is there; returns once that is on the disk."""
    if path.exists():
        path.unlink()
        _flush(path.parent)


def sweep(folder: Path, *, alone: bool = False) -> None:
    """Remove temporary files and folders left behind by dead processes.

    A folder that died between its old version and its new one gets the old version back.

    Parameters
    ----------
    alone
        The caller holds a lock, so that nobody else writes here: what is left goes even if a
        process with the number of its writer is running, as may be after the machine has restarted.
    """
    for entry in list(folder.iterdir()) if folder.is_dir() else ():
        match = _TEMPORARY.fullmatch(entry.name)
        if not match:
            continue
        with contextlib.suppress(OSError):  # somebody else sweeps too, or it may not be removed
            if not alone and not is_abandoned(entry, match["mark"]):
                continue
            if match["old"] and not (folder / match["name"]).exists():
                entry.rename(folder / match["name"])
            elif entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()
            _flush(folder)


def is_temporary(name: str) -> bool:
    """Whether a file or folder of this name is one that was never finished."""
    return _TEMPORARY.fullmatch(name) is not None


@lru_cache(maxsize=64)
def safe_name(name: str, *, in_any_case: bool = False) -> str:
    """File or folder name for any text: a single path component, different for every text.

    Parameters
    ----------
    in_any_case
        Whether names must differ for a file system too to which ``a`` and ``A`` are the same.
    """
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[-60:] or "run"
    if slug.partition(".")[0].lower() in DEVICES:
        slug = f"run-{slug}"
    if slug == name and not (in_any_case and slug != slug.lower()):
        return slug
    digest = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
    return f"{slug}-{digest}"


def _write_manifest(folder: Path, listed: dict[str, object], kind: str) -> None:
    files = {name: listed[name] for name in sorted(listed) if (folder / name).exists()}
    write_file(folder / MANIFEST, json.dumps({"format": kind, "files": files}, indent=1).encode())


def _entry(content: bytes) -> dict[str, object]:
    digest = hashlib.blake2b(content, digest_size=32).hexdigest()
    return {"bytes": len(content), "blake2b": digest}


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of the disk within the block name ``path``, not a temporary file or nothing."""
    try:
        yield
    except OSError as error:
        named = Path(os.fsdecode(error.filename or ""))
        if error.filename is not None and not any(map(is_temporary, named.parts)):
            raise
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def _temporary(path: Path) -> Path:
    _sweep_once(path.parent.absolute(), os.getpid())
    return path.with_name(f".tmp-{path.name}-{own_mark()}-{next(_numbers)}")


@lru_cache(maxsize=1024)
def _sweep_once(folder: Path, _process: int) -> None:
    """Sweep a folder when a process first writes into it."""
    sweep(folder)


def _temporary_folder(path: Path) -> Path:
    make_folder(path.parent)
    folder = _temporary(path)
    folder.mkdir()
    return folder


def _write(path: Path, content: bytes, *, wait: bool = True) -> None:
    descriptor = os.open(path, _ANEW, 0o666)
    try:
        _write_all(descriptor, content)
        if wait:
            flush(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    remaining = memoryview(content)
    while remaining:
        remaining = remaining[os.write(descriptor, remaining) :]


def _flush(path: Path) -> None:
    """Flush a file, or the names in a folder: else a loss of power may undo a renaming."""
    is_folder = path.is_dir()
    if is_folder and not FLUSHES_FOLDERS:
        return
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)  # Windows flushes no other
    try:
        flush(descriptor)
    finally:
        os.close(descriptor)


def _replace_folder(temporary: Path, path: Path) -> None:
    old = temporary.with_name(f"{temporary.name}.old")
    if path.exists():
        path.rename(old)
    try:
        temporary.rename(path)
    except BaseException:  # an interruption too
        if old.exists() and not path.exists():
            old.rename(path)
        raise
    _flush(path.parent)
    if old.exists():
        shutil.rmtree(old, ignore_errors=True)
        _flush(path.parent)  # else half of it may be there when nothing has the name any more
