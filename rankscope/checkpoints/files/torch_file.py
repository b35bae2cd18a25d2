"""Files that ``torch.save`` wrote, opened without torch: the object, with its tensors on disk.

Since torch 1.6 such a file is a zip of the pickled object and the elements of each storage. The
format before that is in `torch_before_1_6`. Agents of Stable-Baselines3 are a zip of such zips.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rankscope.checkpoints.files.distributed_tensors import HeldPiece
from rankscope.checkpoints.files.pickles import read_object
from rankscope.checkpoints.files.saved_tree import NESTED
from rankscope.checkpoints.files.torch_before_1_6 import BIG_ENDIAN, read_pickles
from rankscope.checkpoints.files.torch_script import CONSTANTS, read_script, storages_of
from rankscope.checkpoints.files.torch_tensors import NAMES, ClosedTensor
from rankscope.checkpoints.files.zip_file import FilePart, entry_bytes, stored_start, zip_entries
from rankscope.checkpoints.limits import (
    FREE_BYTES,
    MAX_BYTES,
    MAX_DEPTH,
    MAX_NAME,
    VIEWS,
    size_text,
)
from rankscope.checkpoints.tensors import StoredTensor, open_regular
from rankscope.errors import RankscopeError

POLICY, AGENT_SUFFIX = "policy", ".pth"  # of the files in an agent's zip


@dataclass(frozen=True)
class Saved:
    """What ``torch.save`` wrote.

    Attributes
    ----------
    content
        The object. Dicts, lists, tuples, text and numbers are themselves. A tensor is a
        `StoredTensor`, named after its place in the object (``model.wte.weight``). A namespace
        keeps its entries. Anything else is an inert `Opaque`.
    closed
        Names of the classes and functions that only code could make or call.
    """

    path: Path
    content: Any
    closed: tuple[str, ...] = ()


def open_saved(path: Path, *, trust: bool = False) -> Saved:
    """Open what ``torch.save`` wrote; reads no data of tensors, imports and runs nothing.

    Parameters
    ----------
    trust
        Let the code of other packages make objects of classes that are not known to be inert.
        Whoever wrote the file then decides what runs.

    Raises
    ------
    RankscopeError
        If the file is damaged, or of another kind.
    """
    with open_regular(path) as (file, size):
        if trust:
            return _read(path, FilePart(file, 0, size), trust=True)
        status = os.fstat(file.fileno())
    found = _remembered(path, size, status.st_mtime_ns, status.st_ino)
    if isinstance(found, str):
        raise RankscopeError(found, path=path, reason="over-limit")
    return found


@lru_cache(maxsize=2)
def _remembered(path: Path, size: int, _modified: int, _inode: int) -> Saved | str:
    """A file as opened last: recognising it, finding its step and reading it each open it.

    Of one beyond a limit, which takes longest to see, the message. It is remembered rather than the
    error, which would hold what had been read.
    """
    try:
        with open_regular(path) as (file, _):
            return _read(path, FilePart(file, 0, size), trust=False)
    except RankscopeError as error:
        if error.reason == "over-limit" and error.path == str(path) and error.tensor is None:
            return error.message
        raise


def open_saved_at(path: Path, start: int, size: int, *, trust: bool = False) -> Saved:
    """Open what ``torch.save`` wrote into ``size`` bytes of a file; otherwise as `open_saved`."""
    with open_regular(path) as (file, length):
        if start < 0 or size < 0 or start + size > length:
            message = f"is cut short: it has {length} bytes instead of {start + size}"
            raise RankscopeError(message, path=path, reason="cut-short")
        return _read(path, FilePart(file, start, size), trust=trust)


def open_agent(path: Path, *, trust: bool = False) -> Saved:
    """Open the torch files in an agent's zip: one table, under the names of the files.

    Raises
    ------
    RankscopeError
        If the zip or a file in it is damaged, or a file is compressed.
    """
    with open_regular(path) as (file, size):
        part = FilePart(file, 0, size)
        entries = zip_entries(part, path)
        places = {
            name.removesuffix(AGENT_SUFFIX): (stored_start(part, info, path), info.file_size)
            for name, info in entries.items()
            if name.endswith(AGENT_SUFFIX) and "/" not in name
        }
    if POLICY not in places:
        message = f"is a zip without {POLICY}{AGENT_SUFFIX}, not an agent"
        raise RankscopeError(message, path=path, reason="other-kind")
    opened = {
        name: open_saved_at(path, start, length, trust=trust)
        for name, (start, length) in places.items()
    }
    closed = tuple(dict.fromkeys(name for one in opened.values() for name in one.closed))
    content = {name: _named(one.content, name) for name, one in opened.items()}
    return Saved(path, content, closed)


def _named(content: Any, name: str) -> Any:
    """A tensor by itself has the name of its file."""
    return replace(content, name=name) if isinstance(content, StoredTensor) else content


def _read(path: Path, part: FilePart, *, trust: bool) -> Saved:
    read = _read_zip if part.bytes_at(0, 2) == b"PK" else read_pickles
    content, closed = read(path, part, trust=trust)
    return Saved(path, _placed(content, path, part.size), closed)


def _read_zip(path: Path, part: FilePart, *, trust: bool) -> tuple[Any, tuple[str, ...]]:
    """The object, whose tensors have no names yet, and the unknown names in it."""
    entries = zip_entries(part, path)
    roots = [name.partition("/")[0] for name in entries if name.partition("/")[2] == "data.pkl"]
    if len(roots) != 1:
        message = "is a zip without a data.pkl, so not a torch file"
        raise RankscopeError(message, path=path, reason="other-kind")
    root = roots[0]
    order = entries.get(f"{root}/byteorder")
    if order is not None and entry_bytes(part, order, path, limit=16) != b"little":
        raise RankscopeError(BIG_ENDIAN, path=path, reason="big-endian")
    if f"{root}/{CONSTANTS}" in entries:
        return read_script(path, part, entries, root)
    storage = storages_of(path, part, entries, f"{root}/data")
    program = entry_bytes(part, entries[f"{root}/data.pkl"], path, limit=MAX_BYTES)
    return read_object(
        io.BytesIO(program),
        NAMES,
        path=path,
        persistent=storage,
        tensors=len(entries),
        trust=trust,
    )


def _placed(content: Any, path: Path, size: int) -> Any:
    """The same object with its tensors named after their places; those that expand are closed."""
    done: dict[int, Any] = {}
    views = _Views(size)

    def placed(one: Any, place: str, depth: int) -> Any:
        if isinstance(one, StoredTensor):
            return views.checked(one) or replace(one, name=place)
        if isinstance(one, HeldPiece):
            return (one.local and views.checked(one.local)) or one.named(place)
        if not isinstance(one, dict | list | tuple | SimpleNamespace):
            return one
        if depth > MAX_DEPTH or len(place) > MAX_NAME:
            raise RankscopeError(NESTED, path=path, reason="damaged")
        if id(one) not in done:
            done[id(one)] = None  # a container that holds itself holds nothing there
            done[id(one)] = rebuilt(one, place, depth + 1)
        return done[id(one)]

    def rebuilt(one: Any, place: str, depth: int) -> Any:
        if isinstance(one, dict):
            return {key: placed(held, _below(place, key), depth) for key, held in one.items()}
        if isinstance(one, SimpleNamespace):
            return SimpleNamespace(**rebuilt(vars(one), place, depth))
        entries = [placed(held, _below(place, index), depth) for index, held in enumerate(one)]
        return entries if isinstance(one, list) else tuple(entries)

    return placed(content, "", 0)


class _Views:
    """Adds up the bytes of all different views of the storages of a file of ``size`` bytes."""

    def __init__(self, size: int) -> None:
        self._size, self._left = size, FREE_BYTES + VIEWS * size
        self._seen: set[StoredTensor] = set()

    def checked(self, view: StoredTensor) -> ClosedTensor | None:
        """A closed tensor in place of a view that is too much; None for one that is not."""
        if not view.nbytes or view in self._seen:
            return None
        if view.nbytes > self._left:
            what = f"view of {size_text(view.nbytes)} in a file of {size_text(self._size)}"
            return ClosedTensor(what, view.shape, view.dtype, reason="expands")
        self._seen.add(view)
        self._left -= view.nbytes
        return None


def _below(place: str, key: Any) -> str:
    name = str(key)[: MAX_NAME + 1]
    return f"{place}.{name}" if place else name
