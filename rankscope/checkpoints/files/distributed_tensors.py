"""Tensors of which a process held a piece: torch's DTensor and ShardedTensor in pickles.

Both say what the whole is and which part of it the file has. A training that gathers its weights
before it saves them writes neither. One that does not (FSDP, tensor parallelism) writes one file
per process.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from typing import Any

from rankscope.checkpoints.files.inert_names import Opaque
from rankscope.checkpoints.limits import are_counts
from rankscope.checkpoints.tensors import StoredTensor
from rankscope.errors import DAMAGE

# Both have been in several modules, and so have the classes that they are made of.
MODULES = (
    *("torch.distributed.tensor", "torch.distributed.tensor.api", "torch.distributed.tensor._api"),
    *("torch.distributed._tensor", "torch.distributed._tensor.api"),
    *("torch.distributed.tensor._dtensor_spec", "torch.distributed._tensor._dtensor_spec"),
    *("torch.distributed.tensor.placement_types", "torch.distributed._tensor.placement_types"),
    *("torch.distributed.device_mesh", "torch.distributed._tensor.device_mesh"),
    *("torch.distributed._mesh_layout", "torch._C._distributed"),
    *("torch.distributed._shard.sharded_tensor.api", "torch.distributed._shard.metadata"),
    *("torch.distributed._shard.sharded_tensor", "torch.distributed._shard.sharded_tensor.shard"),
    *("torch.distributed._shard.sharded_tensor.metadata", "torch.distributed.remote_device"),
    *("torch.distributed._shard.sharding_spec", "torch.distributed._shard.sharding_spec.api"),
    "torch.distributed._shard.sharding_spec.chunk_sharding_spec",
)
CLASSES = (
    *("DTensor", "DTensorSpec", "TensorMeta", "ShardOrderEntry", "Shard", "Replicate", "Partial"),
    *("_Partial", "_StridedShard", "_MaskPartial", "DeviceMesh", "_MeshLayout", "_FlatLayout"),
    *("ShardedTensor", "ShardedTensorMetadata", "ShardMetadata", "TensorProperties"),
    *("MEM_FORMAT_ENCODING", "ShardedTensor.ProcessGroupState", "_remote_device"),
    *("ChunkShardingSpec", "EnumerableShardingSpec"),
)
DTENSOR, SHARDED = "DTensor", "ShardedTensor"

Sizes = tuple[int, ...]


class Record(Opaque):
    """An object of one of these classes, made by Python's unpickler or by ours."""

    __slots__ = ()
    known = ""

    def __new__(cls, *args: Any) -> Record:
        """Make one; Python's unpickler calls nothing else."""
        made = super().__new__(cls)
        Opaque.__init__(made, cls.known, *args)
        return made

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state


class HeldPiece(Opaque):
    """A tensor of which a file has the piece that one process held.

    Attributes
    ----------
    shape
        Shape of the whole.
    local
        The piece; None where the process held nothing of it, or several pieces.
    axis
        The axis along which the whole was split in the order of the processes; None where it was
        not split along a single axis.
    index
        Index of the piece along the axis, where that is recorded.
    start
        Where the piece begins in every axis, where that is recorded.
    """

    __slots__ = ("axis", "index", "local", "shape", "start")

    def __init__(
        self,
        name: str,
        shape: Sizes,
        local: StoredTensor | None,
        *,
        axis: int | None = None,
        index: int | None = None,
        start: Sizes | None = None,
    ) -> None:
        super().__init__(name)
        self.shape, self.local = shape, local
        self.axis, self.index, self.start = axis, index, start

    def named(self, name: str) -> HeldPiece:
        """The same with this name for the piece."""
        made = copy(self)
        made.local = None if self.local is None else replace(self.local, name=name)
        return made

    @property
    def message(self) -> str:
        """What it is, for a reader that cannot use a piece."""
        held = "nothing" if self.local is None else f"{list(self.local.shape)}"
        return (
            f"is a {self.name.rpartition('.')[2]}, of which the file has one process's slice: "
            f"{held} of {list(self.shape)}"
        )


def is_distributed(kind: str) -> bool:
    """Whether a class of this dotted name is DTensor or ShardedTensor."""
    return kind.startswith("torch.distributed.") and kind.endswith((f".{DTENSOR}", f".{SHARDED}"))


def distributed(kind: str, state: Any) -> StoredTensor | HeldPiece | None:
    """The tensor that a pickled DTensor or ShardedTensor represents.

    Parameters
    ----------
    kind
        Dotted name of its class.
    state
        What its class put into the pickle.

    Returns
    -------
    The piece itself where it is the whole: with a single process, or where every process held all
    of it. Else a `HeldPiece`; None where the record is not understood.
    """
    try:
        held = _dtensor(kind, state) if kind.endswith(DTENSOR) else _sharded(kind, state)
    except DAMAGE:
        return None
    # A share that is still to be summed over processes has the whole's shape, but is not the whole.
    if held.local is not None and held.local.shape == held.shape and held.name == kind:
        return held.local
    return held


def _dtensor(kind: str, state: Any) -> HeldPiece:
    parts = _parts(state)
    local, spec = parts["_local_tensor"], _parts(parts["_spec"])
    shape = _sizes(_arguments(spec["tensor_meta"])[0])
    placements = [_short(one) for one in spec["placements"]]
    if not isinstance(local, StoredTensor):
        raise ValueError("has no piece")
    if any("Partial" in one for one in placements):
        return HeldPiece(f"{kind} of partial sums", shape, local)
    split = spec["placements"][0] if placements == ["Shard"] else None
    axis = None if split is None else _axis(split) % len(shape)
    return HeldPiece(kind, shape, local, axis=axis, index=_index(spec["mesh"]))


def _sharded(kind: str, state: Any) -> HeldPiece:
    shards, metadata, *_ = state
    shape = _sizes(_parts(metadata)["size"])
    if len(shards) != 1:
        return HeldPiece(kind, shape, None)
    shard = _parts(shards[0])
    local, start = shard["tensor"], _sizes(_parts(shard["metadata"])["shard_offsets"])
    if not isinstance(local, StoredTensor) or len(start) != len(shape):
        raise ValueError("has no piece")
    return HeldPiece(kind, shape, local, start=start)


def _parts(state: Any) -> Mapping[str, Any]:
    """Attributes by name: of a record, of a table, or of the pair that slotted classes pickle."""
    if isinstance(state, Opaque):
        return _parts(state.state)
    if isinstance(state, tuple):
        tables = (one for one in state if isinstance(one, Mapping))
        return {key: value for table in tables for key, value in table.items()}
    return state if isinstance(state, Mapping) else {}


def _arguments(record: Any) -> Any:
    """The arguments that a named tuple was made from."""
    if isinstance(record, Opaque) and record.args:
        return record.args
    return record if isinstance(record, tuple) else tuple(_parts(record).values())


def _index(mesh: Any) -> int | None:
    """Index of the process in a row of processes."""
    stated = _parts(mesh).get("_coordinate_on_dim")
    if not isinstance(stated, tuple | list) or len(stated) != 1 or type(stated[0]) is not int:
        return None
    return stated[0]


def _axis(placement: Any) -> int:
    stated = _parts(placement).get("dim", next(iter(placement.args), None))
    if type(stated) is not int:
        raise ValueError("is split along an axis that is not a number")
    return stated


def _short(record: Any) -> str:
    return record.name.rpartition(".")[2] if isinstance(record, Opaque) else ""


def _sizes(numbers: Any) -> Sizes:
    if not are_counts(numbers):
        raise ValueError("has sizes that are not non-negative integers")
    return tuple(numbers)


def _record(name: str, inner: Mapping[str, Any]) -> type[Record]:
    return type(name.rpartition(".")[2], (Record,), {"__slots__": (), "known": name, **inner})


# A ShardedTensor's record names a class within its class.
_INNER = {"ShardedTensor": {"ProcessGroupState": _record("ShardedTensor.ProcessGroupState", {})}}

NAMES: Mapping[str, Any] = {
    f"{module}.{short}": _record(f"{module}.{short}", _INNER.get(short, {}))
    for module in MODULES
    for short in CLASSES
} | {
    # Protocols before 4 name an inner class by it; nothing is looked up.
    "builtins.getattr": lambda *_: Opaque("builtins.getattr")
}
