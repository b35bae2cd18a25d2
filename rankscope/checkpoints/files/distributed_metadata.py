"""The pickle ``.metadata`` of a distributed checkpoint, read without importing what it names."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rankscope.checkpoints.files.pickles import MAX_BYTES, Opaque, read_pickle
from rankscope.checkpoints.files.torch_tensors import NAMES as TORCH_NAMES
from rankscope.checkpoints.tensors import open_regular
from rankscope.errors import RankscopeError, printable

# The classes that it is made of have been in several modules, and OLMo-core has one of its own.
MODULES = (
    "torch.distributed.checkpoint.metadata",
    "torch.distributed.checkpoint.filesystem",
    "torch.distributed._shard.checkpoint.metadata",
    "torch.distributed._shard.checkpoint.filesystem",
    "torch.distributed._shard.sharded_tensor.metadata",
    "olmo_core.distributed.checkpoint.filesystem",
)
CLASSES = (
    *("Metadata", "MetadataIndex", "TensorStorageMetadata", "BytesStorageMetadata"),
    *("ChunkStorageMetadata", "TensorProperties", "StorageMeta", "_StorageInfo"),
    *("MEM_FORMAT_ENCODING", "_MEM_FORMAT_ENCODING"),
)
TENSOR = "TensorStorageMetadata"
# What it takes to read a record that lacks something, or has something else in its place.
DAMAGE = (ValueError, KeyError, TypeError, IndexError, AttributeError)
NAMES: Mapping[str, Any] = {
    **TORCH_NAMES,
    **{f"{module}.{name}": partial(Opaque, name) for module in MODULES for name in CLASSES},
}

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Chunk:
    """A piece of a tensor: where it begins in every axis, its shape, and where it lies.

    Attributes
    ----------
    file
        Name of the file; empty where none is recorded.
    offset, length
        Of what ``torch.save`` wrote, in bytes.
    transforms
        What its bytes went through, such as a compression.
    """

    start: Sizes
    shape: Sizes
    file: str = ""
    offset: int = 0
    length: int = 0
    transforms: tuple[str, ...] = ()


@dataclass(frozen=True)
class Entry:
    """A tensor that ``.metadata`` lists.

    Attributes
    ----------
    keys
        By which it was reached in the nested state that was saved: ``("model", "wte.weight")``.
    dtype
        As rankscope names it; torch's name where it has none.
    chunks
        Its pieces, each once.
    """

    name: str
    keys: tuple[str, ...]
    dtype: str
    shape: Sizes
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True)
class Listed:
    """What ``.metadata`` lists: tensors, and the names of everything that is pickled."""

    entries: tuple[Entry, ...]
    others: tuple[str, ...]


def read_metadata(path: Path) -> Listed:
    """Read which tensors a distributed checkpoint holds, and where their pieces lie.

    Raises
    ------
    RankscopeError
        With the reason ``unsafe-pickle`` if it asks for other classes than those it is made of;
        also if it is no such pickle, implausibly large or contradicts itself.
    """
    with open_regular(path) as (file, size):
        if size > MAX_BYTES:
            raise RankscopeError(f"has {size} bytes, too many for a list of tensors", path=path)
        metadata = _unpickled(file.readall(), path)
    listed = _state(metadata).get("state_dict_metadata")
    if not isinstance(listed, dict):
        raise RankscopeError("is no metadata of a distributed checkpoint", path=path)
    try:
        places, keys = _places(_state(metadata)), _state(metadata).get("planner_data")
    except DAMAGE as error:
        raise RankscopeError(f"is damaged ({printable(str(error))})", path=path) from None
    entries, others = [], []
    for name, described in listed.items():
        tensor = name if isinstance(name, str) else ""
        # The others are pickled objects, such as the number of steps.
        if not isinstance(described, Opaque) or described.name != TENSOR:
            others.append(tensor)
        else:
            try:
                entries.append(_entry(tensor, described, keys, places))
            except DAMAGE as error:
                message = f"its entry is damaged ({printable(str(error))})"
                raise RankscopeError(message, path=path, tensor=tensor) from None
    return Listed(tuple(entries), tuple(others))


def _unpickled(raw: bytes, path: Path) -> Any:
    try:
        return read_pickle(io.BytesIO(raw), NAMES, path=path)
    except RankscopeError as error:
        if error.reason != "unsafe-pickle":
            raise
        # What it needs is known, so that there is nothing to trust it for.
        what = error.message.partition(": --trust-pickle")[0]
        message = f"{what}, which no distributed checkpoint has: it is not read"
        raise RankscopeError(message, path=path, reason=error.reason) from None


def _state(record: Any) -> dict[str, Any]:
    """Attributes of a record; empty for what is none."""
    state = record.state if isinstance(record, Opaque) else None
    return state if isinstance(state, dict) else {}


def _places(metadata: dict[str, Any]) -> dict[tuple[str, Sizes], dict[str, Any]]:
    """Where the pieces lie, by name and start."""
    storage = metadata.get("storage_data")
    if not isinstance(storage, dict):
        return {}
    found = {}
    for index, place in storage.items():
        stated = _state(index)
        if stated.get("offset") is not None:
            found[str(stated["fqn"]), _sizes(stated["offset"])] = _state(place)
    return found


def _entry(
    name: str, described: Opaque, keys: Any, places: Mapping[tuple[str, Sizes], dict[str, Any]]
) -> Entry:
    stated = _state(described)
    shape, chunks = _sizes(stated["size"]), {}
    for listed in map(_state, stated["chunks"]):
        start, own = _sizes(listed["offsets"]), _sizes(listed["sizes"])
        chunks[start] = _chunk(start, own, places.get((name, start)))
    properties = stated["properties"].state
    dtype = properties["dtype"] if isinstance(properties, dict) else properties[0]
    if not isinstance(dtype, str) or not name:
        raise ValueError("it has no dtype or no name")
    return Entry(name, tuple(_iter_keys(name, keys)), dtype, shape, tuple(chunks.values()))


def _chunk(start: Sizes, shape: Sizes, place: Mapping[str, Any] | None) -> Chunk:
    if place is None:
        return Chunk(start, shape)
    file, transforms = place["relative_path"], place.get("transform_descriptors") or ()
    if not isinstance(file, str) or Path(file).name != file or file in ("", ".", ".."):
        raise ValueError(f"a piece is said to be in {file!r}, not a file beside it")
    offset, length = _sizes((place["offset"], place["length"]))
    if not _is_row(transforms) or not all(isinstance(one, str) for one in transforms):
        raise ValueError("what a piece went through is no list of names")
    return Chunk(start, shape, file, offset, length, tuple(transforms))


def _iter_keys(name: str, keys: Any) -> Iterator[str]:
    """Keys that the tensor was reached by; its whole name where they are not recorded."""
    found: Any = keys.get(name) if isinstance(keys, dict) else None
    stated = [str(key) for key in found if isinstance(key, str | int)] if _is_row(found) else []
    # The lengths first: a small pickle can have a long text very often.
    is_name = sum(len(key) + 1 for key in stated) == len(name) + 1 and ".".join(stated) == name
    yield from stated if is_name else [name]


def _sizes(found: Any) -> Sizes:
    """The numbers, if they are counts."""
    if not _is_row(found) or any(type(n) is not int or n < 0 for n in found):
        raise ValueError("sizes or offsets are not whole numbers from 0")
    return tuple(found)


def _is_row(found: Any) -> bool:
    return isinstance(found, tuple | list)
