"""Every change that this process makes below a folder, in order, and what was promised when.

Functions of `os` are replaced for the time of the recording. Writers in C, such as Python's own
file objects, do not call these: the files that they hold open are read again at every operation,
and what is new in them counts as written just before it. Python's audit events, which come from
below `os`, show whether a change went past the recording, and so does a comparison with what is
really there in the end.
"""

from __future__ import annotations

import builtins
import fcntl
import io
import os
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.power_loss.disk import Disk, Kind, Operation, Tree

WRITING = os.O_WRONLY | os.O_RDWR
# What Python reports from within these calls, whoever makes them.
AUDITED = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")


@dataclass
class Recording:
    """What happened below a folder.

    Attributes
    ----------
    before
        What was there in the beginning.
    operations
        What was done to it.
    marks
        Anything said about the time between two operations: how many there were, and what is said.
    """

    root: Path
    before: Tree
    operations: list[Operation] = field(default_factory=list)
    marks: list[tuple[int, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.disk = Disk(self.before)
        self.calls, self.audited = Counter[str](), Counter[str]()
        self._open_in_c = set[str]()

    def mark(self, said: Any) -> None:
        """Say something about now."""
        self.observe()
        self.marks.append((len(self.operations), said))

    def add(self, kind: Kind, path: str, **more: Any) -> None:
        """Record an operation that has just been done."""
        operation = Operation(kind, path, **more)
        self.disk.apply(operation)
        self.operations.append(operation)

    def first(self, paths: Collection[str]) -> int:
        """How many operations there were with the first one on any of these paths."""
        return next(
            number
            for number, operation in enumerate(self.operations, start=1)
            if operation.path in paths or operation.to in paths
        )

    def watch(self, path: str) -> None:
        """From now on, look whether a file has grown or changed."""
        self._open_in_c.add(path)

    def observe(self) -> None:
        """Record what writers in C have done since the last look."""
        for path in sorted(self._open_in_c):
            before = self.disk.content(path)
            if before is None or not (self.root / path).is_file():
                self._open_in_c.discard(path)  # renamed or removed, which is recorded by itself
                continue
            now = (self.root / path).read_bytes()
            if now == before:
                continue
            if not now.startswith(before):
                self.add("truncate", path)
                before = b""
            self.add("write", path, at=len(before), data=now[len(before) :])

    def require_complete(self) -> None:
        """Fail if something was changed that was not recorded."""
        self.observe()
        assert self.calls == self.audited
        assert self.disk.now() == tree_of(self.root)

    def relative(self, path: Any, folder: int | None = None) -> str | None:
        """A path from the root; None if it is elsewhere."""
        if isinstance(path, int):
            path = _path_of(path)
        path = os.fsdecode(path)
        if folder is not None:
            path = f"{_path_of(folder)}/{path}"
        path = os.path.abspath(path)  # noqa: PTH100 - which follows no links
        if path == str(self.root):
            return ""
        return path.removeprefix(f"{self.root}/") if path.startswith(f"{self.root}/") else None


def tree_of(root: Path) -> Tree:
    """What is in a folder."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
    }


def put(tree: Tree, root: Path) -> None:
    """Make a folder that holds this."""
    root.mkdir(parents=True)
    for path, content in sorted(tree.items()):
        if content is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(content)


@contextmanager
def recording(root: Path) -> Iterator[Recording]:
    """Record what is done below a folder within the block."""
    root = root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    found = Recording(root, tree_of(root))
    with pytest.MonkeyPatch.context() as patch, _audited(found):
        for name, replaced in _replacements(found).items():
            for place in _places(name):
                patch.setattr(place, name.rpartition(".")[2], replaced)
        yield found
        found.require_complete()


def _places(name: str) -> list[Any]:
    return [builtins, io] if name == "open" else [os]


def _replacements(found: Recording) -> dict[str, Callable[..., Any]]:
    """Replacements by the name of what they replace: ``open`` is that of Python's files."""
    real: dict[str, Any] = {name: getattr(os, name) for name in _OF_OS}
    real_open = io.open

    def opened(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        where = found.relative(path, dir_fd)
        writes = where is not None and flags & (WRITING | os.O_CREAT | os.O_TRUNC)
        if not writes:
            return int(real["open"](path, flags, mode, dir_fd=dir_fd))
        found.calls["open"] += 1
        found.observe()
        descriptor = int(real["open"](path, flags, mode, dir_fd=dir_fd))
        _created(found, str(where), truncated=bool(flags & os.O_TRUNC))
        return descriptor

    def opened_in_c(file: Any, mode: str = "r", *args: Any, **settings: Any) -> Any:
        where = None if isinstance(file, int) else found.relative(file)
        if where is None or not set(mode) & set("wax+"):
            return real_open(file, mode, *args, **settings)
        found.calls["open"] += 1
        found.observe()
        opened = real_open(file, mode, *args, **settings)
        _created(found, where, truncated="w" in mode)
        found.watch(where)
        return opened

    def write(descriptor: int, data: Any, *args: int) -> int:
        where = found.relative(descriptor)
        name = "pwrite" if args else "write"
        if where is None:
            return int(real[name](descriptor, data, *args))
        found.observe()
        is_appended = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND
        size = os.fstat(descriptor).st_size
        at = size if is_appended else args[0] if args else os.lseek(descriptor, 0, os.SEEK_CUR)
        written = int(real[name](descriptor, data, *args))
        found.add("write", where, at=at, data=bytes(memoryview(data).cast("B")[:written]))
        return written

    def truncate(path: Any, length: int) -> None:
        where = found.relative(path)
        name = "ftruncate" if isinstance(path, int) else "truncate"
        if where is None:
            return real[name](path, length)
        found.calls["os.truncate"] += 1
        found.observe()
        real[name](path, length)
        found.add("truncate", where, at=length)

    def flush(descriptor: int) -> None:
        if (where := found.relative(descriptor)) is not None:
            found.observe()
            found.add("flush", where)  # the disk's wait itself is not what is tested

    def removing(name: str, event: str) -> Callable[..., None]:
        def remove(path: Any, *, dir_fd: int | None = None) -> None:
            where = found.relative(path, dir_fd)
            if where is None:
                return real[name](path, dir_fd=dir_fd)
            found.calls[event] += 1
            found.observe()
            real[name](path, dir_fd=dir_fd)
            found.add("remove", where)

        return remove

    def mkdir(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        where = found.relative(path, dir_fd)
        if where is None:
            return real["mkdir"](path, mode, dir_fd=dir_fd)
        found.calls["os.mkdir"] += 1
        found.observe()
        real["mkdir"](path, mode, dir_fd=dir_fd)
        found.add("mkdir", where)

    def moving(name: str, kind: Kind) -> Callable[..., None]:
        def move(old: Any, new: Any, **settings: Any) -> None:
            source, target = found.relative(old), found.relative(new)
            if source is None and target is None:
                return real[name](old, new, **settings)
            if source is None or target is None or any(settings.values()):
                raise NotImplementedError(f"{name} of {old} to {new}")
            found.calls[f"os.{'rename' if name == 'replace' else name}"] += 1
            found.observe()
            real[name](old, new, **settings)
            found.add(kind, source, to=target)

        return move

    def refused(name: str) -> Callable[..., Any]:
        def refuse(*args: Any, **settings: Any) -> Any:
            raise NotImplementedError(f"os.{name}: the recording does not know it")

        return refuse

    return {
        "os.open": opened,
        "open": opened_in_c,
        "os.write": write,
        "os.pwrite": write,
        "os.truncate": truncate,
        "os.ftruncate": truncate,
        "os.fsync": flush,
        "os.fdatasync": flush,
        "os.unlink": removing("unlink", "os.remove"),
        "os.remove": removing("remove", "os.remove"),
        "os.rmdir": removing("rmdir", "os.rmdir"),
        "os.mkdir": mkdir,
        "os.rename": moving("rename", "rename"),
        "os.replace": moving("replace", "rename"),
        "os.link": moving("link", "link"),
        **{f"os.{name}": refused(name) for name in ("symlink", "writev", "pwritev")},
    }


_OF_OS = (
    *("open", "write", "pwrite", "truncate", "ftruncate", "unlink", "remove", "rmdir", "mkdir"),
    *("rename", "replace", "link"),
)


def _created(found: Recording, path: str, *, truncated: bool) -> None:
    """Record what opening a file for writing has done to it."""
    before = found.disk.content(path)
    if before is None:
        found.add("create", path)
    elif before and truncated:
        found.add("truncate", path)


def _path_of(descriptor: int) -> str:
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


_listening: list[Recording] = []


@cache
def _listen() -> None:
    """Once, because a hook cannot be taken away again."""
    sys.addaudithook(_heard)


def _heard(event: str, args: tuple[Any, ...]) -> None:
    if not _listening or event not in ("open", *AUDITED):
        return
    found = _listening[-1]
    if event == "open":
        path, _mode, flags = args
        writes = flags & (WRITING | os.O_CREAT | os.O_TRUNC)
        where = None if isinstance(path, int) or not writes else found.relative(path)
    else:
        folder = args[-1] if event in ("os.remove", "os.rmdir", "os.mkdir") else -1
        where = found.relative(args[0], None if folder == -1 else folder)
    if where is not None:
        found.audited[event] += 1


@contextmanager
def _audited(found: Recording) -> Iterator[None]:
    _listen()
    _listening.append(found)
    try:
        yield
    finally:
        _listening.remove(found)
