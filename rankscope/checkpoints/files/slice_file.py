"""One slice of a checkpoint, opened: its tensors by name, and what it says besides."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rankscope.checkpoints.files.distributed_tensors import HeldPiece
from rankscope.checkpoints.files.numpy_file import open_arrays
from rankscope.checkpoints.files.safetensors_file import open_tensors
from rankscope.checkpoints.files.torch_file import iter_leaves, largest_table, open_torch
from rankscope.checkpoints.tensors import FLOATS, Tensor


@dataclass(frozen=True)
class OpenSlice:
    """What the file of one process holds.

    Attributes
    ----------
    tensors
        By name in the model; of a tensor that the process held a piece of, the piece.
    pieces
        By name, those that the file itself says to be pieces, and of what.
    entries
        Everything else that was saved with them, by name.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    pieces: Mapping[str, HeldPiece] = field(default_factory=dict)
    entries: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of what the file has of every tensor."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}

    @property
    def names(self) -> frozenset[str]:
        """Names of all tensors that the file has, or says to have, a piece of."""
        return frozenset(self.tensors) | frozenset(self.pieces)

    @property
    def has_weights(self) -> bool:
        """Whether any of it can be weights."""
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
        If the file is damaged or refused.
    """
    if path.suffix == ".safetensors":
        return OpenSlice(path, open_tensors(path))
    if path.suffix == ".npz":
        return OpenSlice(path, open_arrays(path)[0])
    found = open_torch(path, trust=trust)
    key, tensors = largest_table(_with_pieces(found))
    below = found.get(key) if key else found
    pieces = {name: leaf for name, leaf in iter_leaves(below) if isinstance(leaf, HeldPiece)}
    return OpenSlice(path, tensors, pieces, found if isinstance(found, dict) else {})


def _with_pieces(found: Any, depth: int = 0) -> Any:
    """The same tables with the tensors of pieces for the pieces."""
    if isinstance(found, HeldPiece):
        return found.local
    if isinstance(found, dict) and depth < 8:
        return {key: _with_pieces(held, depth + 1) for key, held in found.items()}
    return found
