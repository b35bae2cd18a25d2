"""The format of torch before 1.6: a series of pickles, followed by the storages.

The pickles are a magic number, the version, the sizes of types, the object, and the keys of the
storages in their order. Each storage is its number of elements, as 8 bytes, and the elements.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from rankscope.checkpoints.files.kinds import LOOK, not_weights
from rankscope.checkpoints.files.pickles import read_object, read_pickle, skim_pickle
from rankscope.checkpoints.files.torch_tensors import (
    NAMES,
    Storage,
    StorageKind,
    storage_identity,
)
from rankscope.checkpoints.files.zip_file import FilePart
from rankscope.checkpoints.limits import BYTES_PER_TENSOR, MAX_BYTES
from rankscope.checkpoints.tensors import AGAIN, DTYPES
from rankscope.errors import RankscopeError, printable

BIG_ENDIAN = "holds numbers in big-endian order, which are not read"
MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001

Held = Mapping[str, tuple[StorageKind, int]]  # by key: type, number of elements


def read_pickles(path: Path, part: FilePart, *, trust: bool) -> tuple[Any, tuple[str, ...]]:
    """Read the object, whose tensors have no names yet, and the unknown names in it.

    Where the storages are is known only after the object, which is therefore skimmed first.

    Raises
    ------
    RankscopeError
        If it is damaged, big-endian or not a file of ``torch.save``.
    """
    file = io.BufferedReader(part.first(MAX_BYTES))
    _check_start(path, part, file)
    start = file.tell()
    held: dict[str, tuple[StorageKind, int]] = {}

    def noted(identity: Any) -> Any:
        if _is_module(identity):
            return identity[1]
        kind, key, count = storage_identity(identity)
        held.setdefault(key, (kind, count))
        return Storage(str(path), kind.dtype, 0, count * DTYPES[kind.dtype][0])

    # No directory says how many storages there are; each takes its bytes.
    tensors = part.size // BYTES_PER_TENSOR
    skim_pickle(file, NAMES, path=path, persistent=noted, tensors=tensors)
    storages = _storages(path, part, file, held)

    def storage(identity: Any) -> Any:
        if _is_module(identity):
            return identity[1]
        _, key, _ = storage_identity(identity)
        match identity[5:]:
            case ((_, int(first), int(count)), *_):
                return storages[key].part(first, count)
        return storages[key]

    file.seek(start)
    return read_object(file, NAMES, path=path, persistent=storage, tensors=tensors, trust=trust)


def _is_module(identity: Any) -> bool:
    """Whether it is not a storage but the class of a module with its source."""
    return isinstance(identity, tuple) and len(identity) > 1 and identity[0] == "module"


def _check_start(path: Path, part: FilePart, file: BinaryIO) -> None:
    """Read past the three pickles that say what the file is."""
    try:
        magic = read_pickle(file, {}, path=path)
    except RankscopeError:
        magic = None
    if magic != MAGIC:
        raise not_weights(part.bytes_at(0, LOOK), part.size, path, kind="torch")
    version, system = read_pickle(file, {}, path=path), read_pickle(file, {}, path=path)
    if version != VERSION:
        shown = printable(repr(version), limit=40)
        message = f"is in version {shown} of torch's old format; only {VERSION} is read"
        raise RankscopeError(message, path=path)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise RankscopeError(BIG_ENDIAN, path=path, reason="big-endian")


def _storages(path: Path, part: FilePart, file: BinaryIO, held: Held) -> dict[str, Storage]:
    """Storages by key, read from the list of their keys onwards."""
    keys = read_pickle(file, {}, path=path)
    if not isinstance(keys, list) or set(map(str, keys)) != set(held):
        message = "is damaged: it does not list its storages"
        raise RankscopeError(message, path=path, reason="damaged")
    place, storages = file.tell(), {}
    for key in keys:
        kind, count = held[str(key)]
        if part.bytes_at(place, 8) != count.to_bytes(8, "little"):
            message = f"is cut short or damaged at byte {place}: {AGAIN}"
            raise RankscopeError(message, path=path, reason="cut-short")
        nbytes = count * DTYPES[kind.dtype][0]
        storages[str(key)] = Storage(str(path), kind.dtype, part.start + place + 8, nbytes)
        place += 8 + nbytes
    if place > part.size:
        message = f"is cut short: {place - part.size} of {place} bytes are missing; {AGAIN}"
        raise RankscopeError(message, path=path, reason="cut-short")
    return storages
