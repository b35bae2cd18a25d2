"""What opening a file of tensors gives: those that may be a model's, and every other in a class."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from numpy.typing import NDArray

from rankscope.checkpoints.account import Classed
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.files.distributed_tensors import HeldPiece
from rankscope.checkpoints.tensors import StoredTensor, Tensor
from rankscope.errors import RankscopeError


@dataclass(frozen=True)
class Unread:
    """A tensor that a file has, and whose numbers are out of reach.

    Its numbers are of a format that came later, lie inside of a pickle, or can be had only by
    running code. It takes part in all that names and shapes decide, and costs nothing but itself.

    Attributes
    ----------
    dtype
        What the file calls the format; not a key of `DTYPES`.
    shape
        As the file states it; empty where it states none.
    offset, nbytes
        Where it lies in the file, as far as that is known.
    why
        What a skip says of it.
    """

    path: str
    name: str
    dtype: str
    shape: tuple[int, ...]
    why: str
    offset: int = 0
    nbytes: int = 0

    @property
    def paths(self) -> tuple[str, ...]:
        """The one file."""
        return (self.path,)

    def read(self) -> NDArray[Any]:
        """Say why it cannot be read."""
        raise RankscopeError(self.why, path=self.path, tensor=self.name)

    def elements(self, start: int, stop: int) -> NDArray[Any]:
        """Say why it cannot be read."""
        return self.read()[start:stop]


@dataclass(frozen=True)
class SlicedTensor(Unread):
    """A tensor of which the file has the piece that one process held; its shape is the whole's."""

    piece: HeldPiece = field(kw_only=True)


@dataclass(frozen=True)
class Opened:
    """The tensors of a file, each of them once in ``tensors`` or ``aside``.

    Attributes
    ----------
    tensors
        Those of the model, by the names that the model gives them.
    aside
        All the others, each in its class: states of optimizers, copies, counters.
    skips
        Of those aside that are not understood.
    notes
        What is worth a line although nothing is missing.
    """

    tensors: Mapping[str, Tensor]
    aside: tuple[Classed, ...] = ()
    skips: tuple[Skip, ...] = field(default=())
    notes: tuple[Skip, ...] = field(default=())


def out_of_reach(name: str, tensor: Tensor) -> tuple[str, str] | None:
    """Code and words for a tensor that cannot be measured whatever it is; None for any other.

    Its numbers are out of reach, or it is a weight without any.
    """
    if isinstance(tensor, Unread):
        return "unreadable", tensor.why
    if 0 in tensor.shape and name.rpartition(".")[2].endswith(("weight", "kernel")):
        return "empty", "is empty, as ZeRO-3 leaves a weight that is not gathered"
    return None


def under_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors, each with the name that it has here: errors and skips go by it."""
    return {
        name: replace(one, name=name) if isinstance(one, StoredTensor | Unread) else one
        for name, one in tensors.items()
    }


def together(parts: Iterable[Opened], tensors: Mapping[str, Tensor]) -> Opened:
    """What several files hold, with these tensors of the model."""
    held = list(parts)
    return Opened(
        tensors,
        tuple(one for part in held for one in part.aside),
        tuple(skip for part in held for skip in part.skips),
        tuple(note for part in held for note in part.notes),
    )
