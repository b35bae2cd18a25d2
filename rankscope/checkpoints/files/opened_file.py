"""What opening a file gives: the tensors that may be a model's, and every other one in its class.

A training that is spread over several processes should gather its weights before it saves them.
Where it did not, ZeRO-3 leaves tensors without elements, and FSDP flattens all parameters of a unit
into one row. Such a file has the names of a model and none of its matrices: `whole` refuses it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray
from typing_extensions import override

from rankscope.checkpoints.account import Classed
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.files.distributed_tensors import HeldPiece
from rankscope.checkpoints.tensors import FLOATS, InOneFile, StoredTensor, Tensor
from rankscope.errors import RankscopeError

EMPTY = (
    "the weights are empty, as ZeRO-3 leaves them where they are not gathered: make whole ones "
    "with zero_to_fp32.py, which DeepSpeed leaves beside its folder"
)
FLAT = (
    "holds flattened parameters, as FSDP leaves them: each unit in one row, without its shapes. "
    "Save a full state dict or a distributed checkpoint"
)
FLAT_NAMES = ("flat_param", "flat_parameter", "_flat_param", "_flattened_param")
TIMES_A_SIDE = 4  # a longer row than this many times the longest side of a matrix is not a bias
AT_LEAST = 100_000  # elements of a flattened row, where there is no matrix to compare it with


@dataclass(frozen=True)
class Unread(InOneFile):
    """A tensor that a file has but whose numbers cannot be read.

    They are in a format that is not known here, are inside a pickle, or are the result of code. The
    tensor still takes part in all that names and shapes decide, so that only itself is lost.

    Attributes
    ----------
    dtype
        The file's name of the format; not a key of `DTYPES`.
    shape
        As the file states it; empty where it states none.
    offset, nbytes
        Where it is in the file, as far as that is known.
    why, reason
        The message of its skip, and its code.
    """

    path: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    why: str
    offset: int = 0
    nbytes: int = 0
    reason: str = "unreadable"

    @override
    def read(self) -> NDArray[Any]:
        raise RankscopeError(self.why, path=self.path, tensor=self.name, reason=self.reason)


@dataclass(frozen=True)
class SlicedTensor(Unread):
    """A tensor of which the file has only the piece of one process; its shape is the whole's."""

    piece: HeldPiece = field(kw_only=True)


@dataclass(frozen=True)
class Opened:
    """The tensors of a file, each of them once in ``tensors`` or ``aside``.

    Attributes
    ----------
    tensors
        Those of the model, by their names in the model.
    aside
        All others, each in its class: states of optimizers, copies, counters.
    skips
        One for each of those aside that is not understood.
    notes
        What is worth a line although nothing is missing.
    """

    tensors: Mapping[str, Tensor]
    aside: tuple[Classed, ...] = ()
    skips: tuple[Skip, ...] = field(default=())
    notes: tuple[Skip, ...] = field(default=())


def out_of_reach(name: str, tensor: Tensor) -> tuple[str, str] | None:
    """Reason and message for a tensor that cannot be measured whatever it is; None for others.

    Either its numbers cannot be read, or it is a weight without any.
    """
    if isinstance(tensor, Unread):
        return tensor.reason, tensor.why
    if 0 in tensor.shape and name.rpartition(".")[2].endswith(("weight", "kernel")):
        return "empty", "is empty, as ZeRO-3 leaves a weight that is not gathered"
    return None


def under_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, each carrying the name it has here, which errors and skips show."""
    return {
        name: replace(one, name=name) if isinstance(one, StoredTensor | Unread) else one
        for name, one in tensors.items()
    }


def together(parts: Iterable[Opened], tensors: Mapping[str, Tensor]) -> Opened:
    """What several files hold, with these tensors of the model."""
    opened = list(parts)
    return Opened(
        tensors,
        tuple(one for part in opened for one in part.aside),
        tuple(skip for part in opened for skip in part.skips),
        tuple(note for part in opened for note in part.notes),
    )


def whole(opened: Opened, path: str) -> Opened:
    """The same, once `check_whole` accepts its tensors."""
    check_whole(opened.tensors, path)
    return opened


def check_whole(tensors: Mapping[str, Tensor], path: str) -> None:
    """Refuse tensors that are what sharded training leaves of weights.

    Empty ones are taken for ZeRO-3's where there is no matrix beside them. A row is taken for
    flattened parameters by its name; without one, where rows hold most of all numbers and the
    longest is longer than any bias of the matrices could be. The price of an error is a model that
    consists of vectors, each of a hundred thousand elements.

    Raises
    ------
    RankscopeError
        With the reason ``empty-weights`` or ``flattened``.
    """
    has_matrix = any(len(t.shape) > 1 and 0 not in t.shape for t in tensors.values())
    if not has_matrix and any(0 in t.shape for t in tensors.values()):
        raise RankscopeError(EMPTY, path=path, reason="empty-weights")
    rows = {n: t.shape[0] for n, t in tensors.items() if len(t.shape) == 1 and t.dtype in FLOATS}
    named = [n for n in rows if n.rpartition(".")[2].startswith(FLAT_NAMES)]
    others = [t.shape for t in tensors.values() if len(t.shape) > 1]
    longest = max(rows.values(), default=0)
    side = max((max(shape) for shape in others), default=0)
    limit = TIMES_A_SIDE * side if others else AT_LEAST
    holds_most = sum(rows.values()) > sum(map(math.prod, others))
    if named or (holds_most and longest > limit):
        raise RankscopeError(FLAT, path=path, reason="flattened")
