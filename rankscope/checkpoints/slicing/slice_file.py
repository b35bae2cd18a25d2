"""One slice of a checkpoint, opened: its tensors by name, and what else the file says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rankscope.checkpoints.files.distributed_tensors import HeldPiece
from rankscope.checkpoints.files.kinds import is_safetensors, kind_of
from rankscope.checkpoints.files.numpy_file import open_arrays
from rankscope.checkpoints.files.opened_file import Opened, SlicedTensor
from rankscope.checkpoints.files.saved_tables import lack_of_weights, sorted_pieces
from rankscope.checkpoints.files.torch_file import open_saved
from rankscope.checkpoints.files.training_state import without_training_state
from rankscope.checkpoints.files.weights_file import open_file
from rankscope.checkpoints.tensors import FLOATS, Tensor


@dataclass(frozen=True)
class OpenSlice:
    """The content of one process's file.

    Attributes
    ----------
    tensors
        By name in the model; the piece, where the process held a piece of a tensor.
    pieces
        By name, those that the file itself says are pieces, and of what.
    entries
        Everything else that was saved with them, by name.
    others
        Tensors that are not of the model, each in its class.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    pieces: Mapping[str, HeldPiece] = field(default_factory=dict)
    entries: Mapping[str, Any] = field(default_factory=dict)
    others: Opened = field(default_factory=lambda: Opened({}))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the tensors as the file has them."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    @property
    def names(self) -> frozenset[str]:
        """Names of all tensors of which the file has a piece, or says that there is one."""
        return frozenset(self.tensors) | frozenset(self.pieces)

    @property
    def has_weights(self) -> bool:
        """Whether anything in it can be weights."""
        return bool(self.pieces) or any(t.dtype in FLOATS for t in self.tensors.values())


def open_slice(path: Path, *, trust: bool = False) -> OpenSlice:
    """Open a slice by its header.

    Parameters
    ----------
    trust
        Whether a pickle may make objects of any class; see `Options`.

    Raises
    ------
    RankscopeError
        If the file is damaged or refused, or does not hold tensors under names.
    """
    if kind_of(path) == "npz":
        arrays, skips = open_arrays(path)
        kept, states = without_training_state(arrays)
        return OpenSlice(path, kept, others=Opened({}, tuple(states), skips))
    if is_safetensors(path):
        opened = open_file(path)
        return OpenSlice(path, opened.tensors, others=replace(opened, tensors={}))
    saved = open_saved(path, trust=trust)
    opened = sorted_pieces(saved)
    sliced = {n: one.piece for n, one in opened.tensors.items() if isinstance(one, SlicedTensor)}
    pieces = {name: piece.named(name) for name, piece in sliced.items()}
    tensors = {n: pieces[n].local if n in pieces else one for n, one in opened.tensors.items()}
    return OpenSlice(
        path,
        {name: tensor for name, tensor in tensors.items() if tensor is not None},
        pieces,
        saved.content if isinstance(saved.content, dict) else {},
        replace(opened, tensors={}),
    )


def may_be_slice(path: Path) -> bool:
    """Whether a file has numbers that may be weights.

    Raises
    ------
    RankscopeError
        If it is damaged or refused.
    """
    is_torch = kind_of(path) != "npz" and not is_safetensors(path)
    if is_torch and lack_of_weights(open_saved(path)):
        return False
    return open_slice(path).has_weights
