"""What a disk may hold after the power fails: operations go in, possible folders come out.

The model is as pessimistic as POSIX allows:

- Flushing a file keeps its content, not its name; flushing a folder keeps the names in it.
- Of a folder that was not flushed, any of the changes since may be lost, in any combination. One
  change alone is atomic, a renaming too, and one that builds on another (same name, or same file)
  does not survive it.
- A file that was not flushed holds what it held when it was last flushed, or all that was written,
  or half of it, or zeros of the new length, or its last write alone after a hole of zeros.

What is written is never altered otherwise: this is a model of lost power, not of broken disks.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Literal

Tree = Mapping[str, bytes | None]  # content by path, None for a folder; without the root
Kind = Literal["create", "write", "truncate", "flush", "mkdir", "rename", "link", "remove"]


@dataclass(frozen=True)
class Operation:
    """One change to the disk, or a wait for it.

    Attributes
    ----------
    kind
        ``flush`` of a file or a folder, ``remove`` a file or a folder.
    path, to
        Relative to the root, which is empty; ``to`` is the new name of a renaming or link.
    at, data
        Where a write begins, and what is written; ``at`` is also the length to truncate to.
    """

    kind: Kind
    path: str
    to: str = ""
    at: int = 0
    data: bytes = b""


@dataclass(frozen=True)
class Size:
    """How many states are tried where not all can be.

    Attributes
    ----------
    product
        All combinations are tried where there are at most so many; elsewhere those that differ in
        one or two places from "all is lost" and from "nothing is lost", and ``random`` others.
    pairs
        Of those that differ in two places, at most so many are tried.
    """

    product: int = 256
    pairs: int = 2000
    random: int = 50


@dataclass
class Counts:
    """How many prefixes there were, and for how many of them not all combinations were tried."""

    prefixes: int = 0
    sampled: int = 0
    states: int = 0  # different ones


@dataclass
class _File:
    flushed: bytes = b""
    now: bytes = b""
    writes: list[Operation] = field(default_factory=list)  # since the last flush
    contents: tuple[bytes, ...] | None = None

    def possible(self) -> tuple[bytes, ...]:
        """What it may hold: first what was flushed, last what was written."""
        if self.contents is None:
            self.contents = tuple(dict.fromkeys([*self._lost(), self.now]))
            if self.contents[-1] != self.now:  # for the order: the same content, written twice
                self.contents = (*self.contents, self.now)
        return self.contents

    def _lost(self) -> Iterator[bytes]:
        yield self.flushed
        if not self.writes:
            return
        kept = _common(self.flushed, self.now)
        yield self.now[: (kept + len(self.now)) // 2]
        yield self.now[:kept].ljust(len(self.now), b"\0")
        if len(self.writes) > 1 and (last := self.writes[-1]).kind == "write":
            yield self.now[:kept].ljust(last.at, b"\0")[: last.at] + self.now[last.at :]
        yield b"" if kept == 0 else self.now[:kept]


@dataclass(frozen=True)
class _Change:
    """One change to a folder: names that vanish, and a name that is then of this node."""

    node: int
    removed: str | None = None
    added: str | None = None

    def touched(self) -> set[str | int]:
        """What it depends on and what depends on it."""
        return {self.node, *(name for name in (self.removed, self.added) if name is not None)}

    def apply(self, names: dict[str, int]) -> None:
        if self.removed is not None:
            names.pop(self.removed, None)
        if self.added is not None:
            names[self.added] = self.node


@dataclass
class _Folder:
    flushed: dict[str, int] = field(default_factory=dict)
    now: dict[str, int] = field(default_factory=dict)
    changes: list[_Change] = field(default_factory=list)  # since the last flush

    def change(self, change: _Change) -> None:
        change.apply(self.now)
        self.changes.append(change)

    def names(self, kept: Sequence[bool]) -> dict[str, int]:
        """Its entries if these changes survive, as far as they can without those that do not."""
        names, lost = dict(self.flushed), set[str | int]()
        for change, is_kept in zip(self.changes, kept, strict=True):
            if is_kept and not lost & change.touched():
                change.apply(names)
            else:
                lost |= change.touched()
        return names


class Disk:
    """A folder as it is, and as it may be after a loss of power.

    Parameters
    ----------
    tree
        What is there in the beginning, all of it flushed.
    """

    def __init__(self, tree: Tree | None = None) -> None:
        self._nodes: list[_File | _Folder] = [_Folder()]
        for path, content in sorted((tree or {}).items()):
            self._add(path, _Folder() if content is None else _File(content, content))
        for node in self._nodes:
            if isinstance(node, _Folder):
                node.flushed, node.changes = dict(node.now), []

    def apply(self, operation: Operation) -> None:
        """Carry out one operation; raises `KeyError` if it does not fit what is there."""
        path, to = operation.path, operation.to
        if operation.kind == "create":
            self._add(path, _File())
        elif operation.kind == "mkdir":
            self._add(path, _Folder())
        elif operation.kind == "flush":
            self._flush(path)
        elif operation.kind == "remove":
            folder, name = self._place(path)
            folder.change(_Change(folder.now[name], removed=name))
        elif operation.kind in ("rename", "link"):
            folder, name = self._place(path)
            target, new = self._place(to)
            if target is not folder:
                raise NotImplementedError(f"{path} → {to}: from one folder to another")
            removed = name if operation.kind == "rename" else None
            folder.change(_Change(folder.now[name], removed=removed, added=new))
        else:
            self._write(operation)

    def now(self) -> Tree:
        """What a running process sees."""
        return self._tree({}, {})

    def content(self, path: str) -> bytes | None:
        """What a running process sees in a file; None if there is none."""
        try:
            node = self._node(path)
        except KeyError:
            return None
        return node.now if isinstance(node, _File) else None

    def states(self, size: Size, seed: int, counts: Counts) -> Iterator[Tree]:
        """Yield what may be there after the power fails now; the same more than once."""
        folders = [(i, n) for i, n in enumerate(self._nodes) if isinstance(n, _Folder)]
        changed = [(i, n) for i, n in folders if n.changes]
        files = [(i, n) for i, n in enumerate(self._nodes) if isinstance(n, _File) and n.writes]
        options = [2] * sum(len(n.changes) for _, n in changed)
        options += [len(n.possible()) for _, n in files]
        counts.prefixes += 1
        counts.sampled += prod(options) > size.product
        for choice in _choices(options, size, random.Random(seed)):
            left = iter(choice)
            names = {i: n.names([bool(next(left)) for _ in n.changes]) for i, n in changed}
            contents = {i: n.possible()[next(left)] for i, n in files}
            yield self._tree(names, contents)

    def _add(self, path: str, node: _File | _Folder) -> None:
        folder, name = self._place(path)
        self._nodes.append(node)
        folder.change(_Change(len(self._nodes) - 1, added=name))

    def _flush(self, path: str) -> None:
        node = self._node(path)
        if isinstance(node, _File):
            node.flushed, node.writes, node.contents = node.now, [], None
        else:
            node.flushed, node.changes = dict(node.now), []

    def _write(self, operation: Operation) -> None:
        node, at = self._node(operation.path), operation.at
        assert isinstance(node, _File)
        if operation.kind == "truncate":
            node.now = node.now[:at].ljust(at, b"\0")
        else:
            end = at + len(operation.data)
            node.now = node.now[:at].ljust(at, b"\0") + operation.data + node.now[end:]
        node.writes.append(operation)
        node.contents = None

    def _node(self, path: str) -> _File | _Folder:
        node: _File | _Folder = self._nodes[0]
        for name in filter(None, path.split("/")):
            if not isinstance(node, _Folder):
                raise KeyError(path)
            node = self._nodes[node.now[name]]
        return node

    def _place(self, path: str) -> tuple[_Folder, str]:
        above, _, name = path.rpartition("/")
        folder = self._node(above)
        assert isinstance(folder, _Folder)
        return folder, name

    def _tree(self, names: Mapping[int, Mapping[str, int]], contents: Mapping[int, bytes]) -> Tree:
        """All that can be reached from the root; entries and contents are these, where given."""
        tree: dict[str, bytes | None] = {}
        above = [("", 0)]
        while above:
            path, number = above.pop()
            node = self._nodes[number]
            if isinstance(node, _File):
                tree[path] = contents.get(number, node.now)
                continue
            if path:
                tree[path] = None
            prefix = f"{path}/" if path else ""
            entries = names.get(number, node.now)
            above += ((prefix + name, inner) for name, inner in entries.items())
        return tree


def _choices(options: Sequence[int], size: Size, rng: random.Random) -> Iterator[Sequence[int]]:
    """For each place one of its options: all combinations, or a choice of them."""
    if prod(options) <= size.product:
        yield from itertools.product(*map(range, options))
        return
    for base in ([0] * len(options), [count - 1 for count in options]):
        yield base
        single = [
            (place, option)
            for place, count in enumerate(options)
            for option in range(count)
            if option != base[place]
        ]
        pairs = [(a, b) for a, b in itertools.combinations(single, 2) if a[0] != b[0]]
        if len(pairs) > size.pairs:
            pairs = rng.sample(pairs, size.pairs)
        for changes in [*((one,) for one in single), *pairs]:
            yield [dict(changes).get(place, option) for place, option in enumerate(base)]
    for _ in range(size.random):
        yield [rng.randrange(count) for count in options]


def _common(one: bytes, other: bytes) -> int:
    """Length of what both begin with."""
    if other.startswith(one):
        return len(one)
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), len(other))
