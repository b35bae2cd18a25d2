"""What `rankscope.durable` promises, marked in a recording, and whether a disk keeps it.

What a function of `durable` has written is there once the function has returned; while it runs,
there is what was there before or what is written, as a whole. Likewise for what is removed.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from rankscope import durable
from tests.reliability.power_loss.disk import Counts, Disk, Size, Tree
from tests.reliability.power_loss.recording import Recording, tree_of

Content = bytes | frozenset[tuple[str, bytes | None]] | None  # of a file, of a folder, or nothing
WRITING = ("write_file", "write_folder", "write_listed_file")
REMOVING = ("remove_folder", "remove_file")
OTHERS = ("rename_folder", "new_folder", "append", "flush_file")


@dataclass(frozen=True)
class Promise:
    """From now on one of these is at a path, or anything if there are none.

    ``is_kept`` once the function has returned: then there is only one of them.
    """

    path: str
    allowed: frozenset[Content] | None
    is_kept: bool = False


@dataclass
class CrashState:
    """What may be on the disk after a loss of power, and what was promised by then.

    Attributes
    ----------
    position
        How many operations had been done.
    promises
        What may be at each path.
    known
        All that was ever promised to be at a path: what is whole.
    kept
        Paths that were there once for certain.
    said
        The other marks so far.
    """

    position: int
    tree: Tree
    promises: Mapping[str, frozenset[Content] | None]
    known: Mapping[str, set[Content]]
    kept: set[str]
    said: list[Any]

    def broken(self, tree: Tree) -> list[str]:
        """Paths that must not be as they are in a tree."""
        return [
            path
            for path, allowed in self.promises.items()
            if allowed is not None and content_in(tree, path) not in allowed
        ]


def crash_states(
    recording: Recording,
    size: Size,
    *,
    seed: int = 0,
    counts: Counts | None = None,
    start: Collection[str] = (),
) -> Iterator[CrashState]:
    """Yield each different state that a loss of power at any time may leave.

    With ``start`` not before the first operation on one of these paths.
    """
    begin = recording.first(start) if start else 0
    disk, counts = Disk(recording.before), counts or Counts()
    promises: dict[str, frozenset[Content] | None] = {}
    known: dict[str, set[Content]] = {}
    said: list[Any] = []
    kept: set[str] = set()
    marks, seen, version = _in_force(recording), set[tuple[int, int]](), 0
    for position in range(len(recording.operations) + 1):
        if position:
            disk.apply(recording.operations[position - 1])
            if recording.operations[position - 1].kind == "flush" and position not in marks:
                continue  # nothing can be there that could not be before, and nothing was promised
        for mark in marks.get(position, ()):
            version += 1
            if isinstance(mark, Promise):
                promises[mark.path] = mark.allowed
                known.setdefault(mark.path, set()).update(mark.allowed or ())
                if mark.is_kept and mark.allowed != {None}:
                    kept.add(mark.path)
            else:
                said.append(mark)
        for tree in disk.states(size, seed + position, counts) if position >= begin else ():
            key = hash(frozenset(tree.items())), version
            if key not in seen:
                seen.add(key)
                counts.states += 1
                yield CrashState(position, tree, promises, known, kept, said)


def _in_force(recording: Recording) -> dict[int, list[Any]]:
    """Marks by the position from which they hold: a call has done nothing before it does something.

    Without that, the promise of a call that has just returned would not be tested, where another
    call on the same path follows at once.
    """
    marks: dict[int, list[Any]] = {}
    for position, mark in recording.marks:
        marks.setdefault(position, []).append(mark)
    for position, here in sorted(marks.items(), reverse=True):
        while here and isinstance(here[-1], Promise) and not here[-1].is_kept:
            later = marks.setdefault(position + 1, [])
            later.insert(0, here.pop())
    return marks


@contextmanager
def marked(recording: Recording) -> Iterator[None]:
    """Mark in a recording what the functions of `durable` promise within the block."""
    marker = _Marker(recording)
    real = {n: getattr(durable, n) for n in (*WRITING, *REMOVING, *OTHERS)}
    replaced: dict[str, Callable[..., Any]] = {
        **{name: marker.writing(real[name]) for name in WRITING},
        **{name: marker.removing(real[name]) for name in REMOVING},
        "rename_folder": marker.renaming(real["rename_folder"]),
        "new_folder": marker.making(real["new_folder"]),
        "append": marker.appending(real["append"]),
        "flush_file": marker.flushing(real["flush_file"]),
    }
    modules = [module for name, module in sys.modules.items() if name.startswith("rankscope")]
    with pytest.MonkeyPatch.context() as patch:
        for name, function in real.items():
            for module in modules:
                if vars(module).get(name) is function:
                    patch.setattr(module, name, replaced[name])
        growing = durable.GrowingFile
        patch.setattr(growing, "complete", marker.completing(growing.complete))
        yield


@dataclass
class _Marker:
    recording: Recording
    appended: set[Path] = field(default_factory=set)

    def promise(self, path: Path, *allowed: Content, is_kept: bool = False) -> None:
        where = self.recording.relative(path)
        # What has a temporary name is promised to nobody.
        if where is None or any(map(durable.is_temporary, Path(where).parts)):
            return
        if is_kept:
            self.appended.discard(path)
        free = path in self.appended  # anything of what was appended may be there
        self.recording.mark(Promise(where, None if free else frozenset(allowed), is_kept))

    def writing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def write(path: Path, content: Any, **settings: Any) -> None:
            new = _folder_content(content, **settings) if isinstance(content, Mapping) else content
            self.promise(path, content_at(path), new)
            function(path, content, **settings)
            self.promise(path, new, is_kept=True)

        return write

    def completing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def complete(file: durable.GrowingFile) -> None:
            new = file._temporary.read_bytes()
            self.promise(file.path, content_at(file.path), new)
            function(file)
            self.promise(file.path, new, is_kept=True)

        return complete

    def removing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def remove(path: Path) -> None:
            self.promise(path, content_at(path), None)
            function(path)
            self.promise(path, None, is_kept=True)

        return remove

    def renaming(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def rename(path: Path, to: Path) -> None:
            moved = content_at(path)
            self.promise(path, moved, None)
            self.promise(to, None, moved)
            function(path, to)
            self.promise(path, None, is_kept=True)
            self.promise(to, moved, is_kept=True)

        return rename

    def making(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @contextmanager
        def make(path: Path) -> Iterator[Path]:
            before = content_at(path)
            with function(path) as folder:
                yield folder
                self.recording.observe()
                self.promise(path, before, content_at(folder))
            self.promise(path, content_at(path), is_kept=True)

        return make

    def appending(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def append(path: Path, content: bytes) -> None:
            self.appended.add(path)
            self.promise(path)
            function(path, content)

        return append

    def flushing(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def flush(path: Path) -> None:
            function(path)
            self.promise(path, content_at(path), is_kept=True)

        return flush


def content_at(path: Path) -> Content:
    """What is at a path."""
    if path.is_dir():
        return frozenset(tree_of(path).items())
    return path.read_bytes() if path.exists() else None


def content_in(tree: Tree, path: str) -> Content:
    """What a tree has at a path."""
    content = tree.get(path)
    if path not in tree or content is not None:
        return content
    inside = f"{path}/"
    return frozenset((p.removeprefix(inside), c) for p, c in tree.items() if p.startswith(inside))


def _folder_content(files: Mapping[str, bytes], *, kind: str) -> Content:
    """What `write_folder` makes of these files."""
    listing = {"format": kind, "files": {n: durable._entry(c) for n, c in files.items()}}
    tree: dict[str, bytes | None] = {
        **files,
        "MANIFEST.json": json.dumps(listing, indent=1).encode(),
    }
    above = (folder for name in files for folder in Path(name).parents[:-1])
    return frozenset((tree | {folder.as_posix(): None for folder in above}).items())
