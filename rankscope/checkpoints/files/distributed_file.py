"""Torch distributed checkpoints: ``.metadata``, and the pieces in ``__<rank>_<n>.distcp``.

``.metadata`` lists every tensor with its pieces, and where each is stored: a file, an offset and a
length, where there is what ``torch.save`` writes. It is written last, so a checkpoint that has it
is whole.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from typing_extensions import override

from rankscope.checkpoints.account import Classed
from rankscope.checkpoints.files.distributed_metadata import Chunk, ListedTensor, read_metadata
from rankscope.checkpoints.files.key_words import MOMENT
from rankscope.checkpoints.files.opened_file import Opened, Unread
from rankscope.checkpoints.files.torch_file import open_saved_at
from rankscope.checkpoints.files.training_state import without_training_state
from rankscope.checkpoints.pieces import Piece, pieces_of
from rankscope.checkpoints.tensors import (
    DTYPES,
    InOneFile,
    StoredTensor,
    Tensor,
    open_regular,
)
from rankscope.errors import RankscopeError, printable

METADATA = ".metadata"

# Outer keys of what a training saves beside the weights.
OPTIMIZER = re.compile(r"(?:.*[._])?optim(?:izer)?s?(?:_states?)?(?:_\d+)?")
# Keys under which the weights of the model may be.
CONTAINERS = {"app", "model", "module", "state_dict", "model_state_dict", "_model"}


@dataclass(frozen=True)
class Blob(InOneFile):
    """A tensor within a larger file, as ``torch.save`` writes it; opened when it is read.

    The checkpoint of a large training has tens of thousands of them, too many to open each one just
    to list them.

    Attributes
    ----------
    offset, length
        Where it is in the file, in bytes.
    """

    path: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    length: int

    @override
    def read(self) -> NDArray[Any]:
        return self._stored.read()

    @override
    def elements(self, start: int, stop: int) -> NDArray[Any]:
        return self._stored.elements(start, stop)

    @cached_property
    def _stored(self) -> StoredTensor:
        try:
            stored = open_saved_at(Path(self.path), self.offset, self.length).content
        except RankscopeError as error:
            raise RankscopeError(
                error.message, path=self.path, tensor=self.name, reason=error.reason
            ) from error
        if not isinstance(stored, StoredTensor) or (stored.dtype, stored.shape) != (
            self.dtype,
            self.shape,
        ):
            raise RankscopeError(
                f"does not hold the {self.dtype} of shape {list(self.shape)} that {METADATA} "
                f"says is at byte {self.offset}",
                path=self.path,
                tensor=self.name,
            )
        return replace(stored, name=self.name)


def open_distributed(folder: Path) -> Opened:
    """List the tensors of a distributed checkpoint; reads ``.metadata`` and nothing else.

    The state of the optimizer is put aside. A name loses the key under which the checkpoint has the
    model, such as ``model``, but no part of the name in the model.

    Raises
    ------
    RankscopeError
        If ``.metadata`` is damaged or holds objects that it should not, if a file is missing or too
        short, or if the pieces of a tensor do not make it up.
    """
    path = folder / METADATA
    listed = read_metadata(path)
    sizes: dict[str, int | None] = {}
    held = {entry.name: _tensor(folder, entry, sizes) for entry in listed.tensors}
    states = {
        entry.name: Classed(held[entry.name], "optimizer", "state of an optimizer")
        for entry in listed.tensors
        if _is_of_optimizer(entry)
    }
    _, more = without_training_state(held, listed=listed.others)
    states |= {one.tensor.name: one for one in more if one.tensor.name not in states}
    kept = [entry for entry in listed.tensors if entry.name not in states]
    names = _names(kept)
    return Opened({names[e.name]: held[e.name] for e in kept}, tuple(states.values()))


def _tensor(folder: Path, entry: ListedTensor, sizes: dict[str, int | None]) -> Tensor:
    path = str(folder / METADATA)
    if entry.dtype not in DTYPES:
        why = f"is stored as {printable(entry.dtype, limit=40)}, a format that is not known here"
        return Unread(path, entry.name, entry.dtype, entry.shape, why)
    if _is_of_optimizer(entry):
        # Most of the bytes, and never read: where they are need not be checked.
        return Unread(path, entry.name, entry.dtype, entry.shape, "is not read")
    pieces = [Piece(c.start, _blob(folder, entry, c, sizes)) for c in entry.chunks]
    return pieces_of(entry.name, entry.shape, pieces, path=path)


def _is_of_optimizer(entry: ListedTensor) -> bool:
    outer = [*entry.keys[:-1], *entry.name.split(".")[:1]]
    last = entry.name.rpartition(".")[2]
    return bool(MOMENT.fullmatch(last)) or any(map(OPTIMIZER.fullmatch, outer))


def _names(entries: Sequence[ListedTensor]) -> dict[str, str]:
    """Name of each tensor in the model, by its name in the checkpoint.

    The recorded keys distinguish the ``model.`` of a checkpoint from that of a model with a part of
    this name, which the names alone do not.
    """
    outer: tuple[str, ...] = ()
    for keys in zip(*(entry.keys[:-1] for entry in entries if len(entry.shape) > 1), strict=False):
        if len(set(keys)) > 1 or keys[0] not in CONTAINERS:
            break
        outer = (*outer, keys[0])
    prefix = "".join(f"{key}." for key in outer)
    inner = {
        entry.name: entry.name.removeprefix(prefix)
        if entry.keys[: len(outer)] == outer
        else entry.name
        for entry in entries
    }
    return inner if len(set(inner.values())) == len(inner) else {name: name for name in inner}


def _blob(folder: Path, entry: ListedTensor, chunk: Chunk, sizes: dict[str, int | None]) -> Blob:
    """Where a piece is stored; ``sizes`` remembers those of the files."""

    def fault(message: str, file: str = METADATA) -> RankscopeError:
        return RankscopeError(message, path=folder / file, tensor=entry.name)

    if not chunk.file:
        raise fault(f"has a piece at {list(chunk.start)}, but does not say where it is stored")
    if chunk.transforms:
        shown = printable(", ".join(chunk.transforms), limit=80)
        raise fault(f"was transformed by {shown}, which is not read: save it without", chunk.file)
    if chunk.file not in sizes:
        sizes[chunk.file] = _size(folder / chunk.file)
    size, needed = sizes[chunk.file], math.prod(chunk.shape) * DTYPES[entry.dtype][0]
    if size is None:
        raise fault(f"is missing, but {METADATA} has a piece of this tensor in it", chunk.file)
    if chunk.length < needed:
        raise fault(f"has {chunk.length} bytes for a piece that takes {needed}")
    if chunk.offset + chunk.length > size:
        raise fault(
            f"is cut short: a piece ends at byte {chunk.offset + chunk.length} of {size}",
            chunk.file,
        )
    path = str(folder / chunk.file)
    return Blob(path, entry.name, entry.dtype, chunk.shape, chunk.offset, chunk.length)


def _size(path: Path) -> int | None:
    if not path.exists():
        return None
    with open_regular(path) as (_, size):
        return size
