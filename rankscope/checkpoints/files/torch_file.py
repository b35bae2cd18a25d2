"""Files that ``torch.save`` wrote, opened without torch: the object, with its tensors on disk."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rankscope.checkpoints.files.distributed_tensors import HeldPiece
from rankscope.checkpoints.files.saved_tree import MAX_DEPTH, MAX_NAME
from rankscope.checkpoints.files.torch_before_1_6 import read_pickles
from rankscope.checkpoints.files.torch_zip import read_zip
from rankscope.checkpoints.files.zip_file import FilePart
from rankscope.checkpoints.tensors import StoredTensor, open_regular
from rankscope.errors import RankscopeError


@dataclass(frozen=True)
class Saved:
    """What ``torch.save`` wrote.

    Attributes
    ----------
    found
        The object: dicts, lists, tuples, text and numbers are themselves; a tensor is a
        `StoredTensor`, named for its place in the object (``model.wte.weight``); a namespace keeps
        its entries; for anything else stands an inert `Opaque`.
    closed
        Names of the classes and functions that only code could make or call.
    """

    path: Path
    found: Any
    closed: tuple[str, ...] = ()


def open_saved(path: Path, *, trust: bool = False) -> Saved:
    """Open what ``torch.save`` wrote; no data of a tensor is read, nothing is imported or run.

    Parameters
    ----------
    trust
        Let objects of other classes than the common inert ones be made, by the code of their
        packages. Whoever wrote the file decides what is run then.

    Raises
    ------
    RankscopeError
        If the file is damaged, or of another kind.
    """
    with open_regular(path) as (file, size):
        if trust:
            return _read(path, FilePart(file, 0, size), trust=True)
        status = os.fstat(file.fileno())
    return _remembered(path, size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=2)
def _remembered(path: Path, size: int, _modified: int, _inode: int) -> Saved:
    """The same once more: to recognise a file, to tell its step and to read it take an opening."""
    with open_regular(path) as (file, _):
        return _read(path, FilePart(file, 0, size), trust=False)


def open_torch(path: Path, *, trust: bool = False) -> Any:
    """The object that ``torch.save`` wrote, as in `open_saved`."""
    return open_saved(path, trust=trust).found


def open_saved_at(path: Path, start: int, size: int, *, trust: bool = False) -> Saved:
    """Open what ``torch.save`` wrote into ``size`` bytes of a file; else as `open_saved`."""
    with open_regular(path) as (file, there):
        if start < 0 or size < 0 or start + size > there:
            message = f"is cut short: it has {there} bytes, and not {start + size}"
            raise RankscopeError(message, path=path, reason="cut-short")
        return _read(path, FilePart(file, start, size), trust=trust)


def open_torch_at(path: Path, start: int, size: int) -> Any:
    """The object that ``torch.save`` wrote into ``size`` bytes of a file."""
    return open_saved_at(path, start, size).found


def _read(path: Path, part: FilePart, *, trust: bool) -> Saved:
    read = read_zip if part.bytes_at(0, 2) == b"PK" else read_pickles
    found, closed = read(path, part, trust=trust)
    return Saved(path, _placed(found, path), closed)


def _placed(found: Any, path: Path) -> Any:
    """The same with tensors that are named for their places."""
    done: dict[int, Any] = {}

    def placed(one: Any, place: str, depth: int) -> Any:
        if isinstance(one, StoredTensor):
            return replace(one, name=place)
        if isinstance(one, HeldPiece):
            return one.named(place)
        if not isinstance(one, dict | list | tuple | SimpleNamespace):
            return one
        if depth > MAX_DEPTH or len(place) > MAX_NAME:
            raise RankscopeError("holds containers nested too deeply", path=path)
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

    return placed(found, "", 0)


def _below(place: str, key: Any) -> str:
    name = str(key)[: MAX_NAME + 1]
    return f"{place}.{name}" if place else name
