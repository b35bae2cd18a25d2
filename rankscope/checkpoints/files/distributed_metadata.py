"""The pickle ``.metadata`` of a distributed checkpoint, read without importing anything."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rankscope.addresses import is_stand_in
from rankscope.checkpoints.files.inert_names import Opaque
from rankscope.checkpoints.files.pickles import read_pickle
from rankscope.checkpoints.files.torch_tensors import NAMES as TORCH_NAMES
from rankscope.checkpoints.limits import MAX_BYTES, MAX_NAME, are_counts
from rankscope.checkpoints.tensors import MAX_AXES, open_regular
from rankscope.errors import DAMAGE, RankscopeError, printable

# The classes that it is made of have been in several modules; OLMo-core has its own.
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
BYTES_PER_PIECE = 1024  # what torch.save writes takes at least as many
NAMES: Mapping[str, Any] = {
    **TORCH_NAMES,
    **{f"{module}.{name}": partial(Opaque, name) for module in MODULES for name in CLASSES},
}

Sizes = tuple[int, ...]


@dataclass(frozen=True)
class Chunk:
    """A piece of a tensor: where it begins in every axis, its shape, and where it is stored.

    Attributes
    ----------
    file
        Name of the file; empty where none is recorded.
    offset, length
        Where in the file what ``torch.save`` wrote is, in bytes.
    transforms
        Transforms of its bytes, such as compression.
    """

    start: Sizes
    shape: Sizes
    file: str = ""
    offset: int = 0
    length: int = 0
    transforms: tuple[str, ...] = ()


@dataclass(frozen=True)
class ListedTensor:
    """A tensor that ``.metadata`` lists.

    Attributes
    ----------
    keys
        Keys that led to it in the nested state that was saved: ``("model", "wte.weight")``.
    dtype
        A key of `DTYPES`, or torch's name of the format.
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
    """What ``.metadata`` lists: tensors, and the names of other, pickled objects."""

    tensors: tuple[ListedTensor, ...]
    others: tuple[str, ...]


def read_metadata(path: Path) -> Listed:
    """Read which tensors a distributed checkpoint holds, and where their pieces are.

    Raises
    ------
    RankscopeError
        If it is not such a pickle, is implausibly large or contradicts itself; with the reason
        ``unsafe-pickle`` if it asks for classes that no such pickle needs.
    """
    with open_regular(path) as (file, size):
        if size > MAX_BYTES:
            raise RankscopeError(f"has {size} bytes, too many for a list of tensors", path=path)
        metadata = _unpickled(file.readall(), path, pieces=_most_pieces(path.parent))
    listed = _state(metadata).get("state_dict_metadata")
    if not isinstance(listed, dict):
        raise RankscopeError("is not the metadata of a distributed checkpoint", path=path)
    try:
        places, keys = _places(_state(metadata)), _state(metadata).get("planner_data")
    except DAMAGE as error:
        raise RankscopeError(f"is damaged ({printable(str(error))})", path=path) from None
    tensors, others = [], []
    for name, described in listed.items():
        shown = name if isinstance(name, str) else ""
        # The others are pickled objects, such as the number of steps.
        if not isinstance(described, Opaque) or described.name != TENSOR:
            others.append(shown)
        else:
            try:
                tensors.append(_tensor(shown, described, keys, places))
            except DAMAGE as error:
                message = f"its entry is damaged ({printable(str(error))})"
                raise RankscopeError(message, path=path, tensor=shown) from None
    return Listed(tuple(tensors), tuple(others))


def _most_pieces(folder: Path) -> int:
    """How many pieces the files of a checkpoint may hold, by the bytes that they take on disk."""
    taken = 0
    for path in folder.iterdir():
        with suppress(OSError):
            status = path.stat()
            taken += status.st_size if is_stand_in(path) else status.st_blocks * 512
    return taken // BYTES_PER_PIECE


def _unpickled(raw: bytes, path: Path, *, pieces: int) -> Any:
    try:
        return read_pickle(io.BytesIO(raw), NAMES, path=path, tensors=pieces)
    except RankscopeError as error:
        if error.reason != "unsafe-pickle":
            raise
        # Trusting it would not help: the classes that it needs are known.
        what = error.message.partition(": if you trust ")[0]
        message = f"{what}, which no distributed checkpoint needs: it is not read"
        raise RankscopeError(message, path=path, reason=error.reason) from None


def _state(record: Any) -> dict[str, Any]:
    """Attributes of a record; empty for anything else."""
    state = record.state if isinstance(record, Opaque) else None
    return state if isinstance(state, dict) else {}


def _places(metadata: dict[str, Any]) -> dict[tuple[str, Sizes], dict[str, Any]]:
    """Where the pieces are stored, by name and start."""
    storage = metadata.get("storage_data")
    if not isinstance(storage, dict):
        return {}
    places = {}
    for index, place in storage.items():
        stated = _state(index)
        if stated.get("offset") is not None:
            places[str(stated["fqn"]), _sizes(stated["offset"])] = _state(place)
    return places


def _tensor(
    name: str, described: Opaque, keys: Any, places: Mapping[tuple[str, Sizes], dict[str, Any]]
) -> ListedTensor:
    stated = _state(described)
    shape, chunks = _sizes(stated["size"]), {}
    for listed in map(_state, stated["chunks"]):
        start, size = _sizes(listed["offsets"]), _sizes(listed["sizes"])
        chunks[start] = _chunk(start, size, places.get((name, start)))
    properties = stated["properties"].state
    dtype = properties["dtype"] if isinstance(properties, dict) else properties[0]
    if not isinstance(dtype, str) or not 0 < len(name) <= MAX_NAME:
        raise ValueError("it lacks a dtype or a name")
    return ListedTensor(name, tuple(_iter_keys(name, keys)), dtype, shape, tuple(chunks.values()))


def _chunk(start: Sizes, shape: Sizes, place: Mapping[str, Any] | None) -> Chunk:
    if place is None:
        return Chunk(start, shape)
    file, transforms = place["relative_path"], place.get("transform_descriptors") or ()
    if not isinstance(file, str) or Path(file).name != file or file in ("", ".", ".."):
        raise ValueError(f"a piece is said to be in {file!r}, not a file beside it")
    offset, length = _sizes((place["offset"], place["length"]))
    if not _is_row(transforms) or not all(isinstance(one, str) for one in transforms):
        raise ValueError("the transforms of a piece are not a list of names")
    return Chunk(start, shape, file, offset, length, tuple(transforms))


def _iter_keys(name: str, keys: Any) -> Iterator[str]:
    """Keys that led to the tensor; its whole name where they are not recorded."""
    recorded: Any = keys.get(name) if isinstance(keys, dict) else None
    stated = [str(k) for k in recorded if isinstance(k, str | int)] if _is_row(recorded) else []
    # Lengths first: a small pickle can contain a long text very often.
    is_name = sum(len(key) + 1 for key in stated) == len(name) + 1 and ".".join(stated) == name
    yield from stated if is_name else [name]


def _sizes(numbers: Any) -> Sizes:
    """The numbers as a tuple, if they are counts."""
    if not are_counts(numbers) or len(numbers) > MAX_AXES:
        raise ValueError("sizes or offsets are not non-negative integers")
    return tuple(numbers)


def _is_row(value: Any) -> bool:
    return isinstance(value, tuple | list)
