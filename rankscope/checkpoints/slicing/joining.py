"""Joins the slices of a parallel training to the tensors that its model has.

Two ways are certain enough. Either the files themselves say which piece of what they hold
(`by_record`). Or a rule says along which axis a tensor of this name was split, and the model's
configuration says what shape must result (`by_rule`). The price of a wrong rule: a matrix with its
rows or columns in another order has the same singular values, but the parts of a fused one would be
mixed. Slices of different splits would join to a matrix that no model has, so shapes are checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rankscope.checkpoints.account import Classed
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.files.opened_file import Unread
from rankscope.checkpoints.pieces import JoinedPieces, Piece, pieces_of
from rankscope.checkpoints.regions import Part, Region
from rankscope.checkpoints.slicing.slice_file import OpenSlice
from rankscope.checkpoints.tensors import Tensor
from rankscope.errors import RankscopeError

MATRIX = 2  # axes
NO_RULE = "no rule says how they are joined: it is not measured"


@dataclass(frozen=True)
class Split:
    """How a tensor was split over the slices, and what the whole has to be.

    Attributes
    ----------
    axis
        The axis along which it was split; None where every process held all of it.
    shape
        Shape of the whole by the configuration, with None for a side that it does not state.
    blocks
        Number of blocks of rows that were split separately, so that each slice has a part of every
        block, one below the other: 2 for a gate and an up projection in one.
    """

    axis: int | None
    shape: tuple[int | None, ...]
    blocks: int = 1


Rule = Callable[[str, tuple[int, ...]], Split | None]  # from a name and a slice's shape


@dataclass
class Joined:
    """The tensors of the whole model, and what could not be joined."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    skips: list[Skip] = field(default_factory=list)
    aside: list[Classed] = field(default_factory=list)

    def add(self, other: Joined, rename: Callable[[str], str]) -> None:
        """Add those of another part of the model under other names."""
        self.tensors |= {rename(name): tensor for name, tensor in other.tensors.items()}
        self.skips += other.skips
        self.aside += other.aside

    def take_first(self, name: str, held: Sequence[Tensor]) -> None:
        """Keep the first process's copy of a tensor that all of them held."""
        self.tensors[name], *copies = held
        is_matrix = len(held[0].shape) >= MATRIX
        for one in copies:
            if is_matrix:
                reason = f"{name}, which every process held: the first copy is measured"
                self.aside.append(Classed(one, "part of", reason))
            else:
                self.aside.append(Classed(one, "no linear map", f"{name} of another process"))

    def leave(self, name: str, held: Sequence[Tensor], message: str) -> None:
        """Put aside a tensor that is not joined, with a skip."""
        self.skips.append(Skip(held[0].paths[0], name, "slices", message))
        self.aside += [Classed(one, "not understood", message) for one in held]


def by_rule(slices: Sequence[OpenSlice], rule: Rule) -> Joined:
    """The tensors of slices that were split by a rule.

    A matrix that the rule does not know is put aside with a skip. Of anything else, such as a norm,
    the first process's copy is kept; it is not measured.

    Raises
    ------
    RankscopeError
        If the slices hold different tensors, or a joined tensor has the wrong shape.
    """
    joined = Joined()
    check_names(slices)
    for name, tensor in slices[0].tensors.items():
        split, held = rule(name, tensor.shape), [s.tensors[name] for s in slices]
        if len(slices) == 1:
            joined.tensors[name] = tensor if split is None else _whole(name, held, split)
        elif unread := _unread(held):
            joined.leave(name, held, unread)
        elif split is not None and split.axis is not None:
            joined.tensors[name] = _whole(name, held, split)
        elif split is not None:
            _whole(name, held, split)
            joined.take_first(name, held)
        elif len(tensor.shape) < MATRIX:
            joined.take_first(name, held)
        else:
            joined.leave(name, held, f"is in {len(slices)} slices, and {NO_RULE}")
    return joined


def _unread(held: Sequence[Tensor]) -> str:
    """Why the numbers of one of a tensor's slices cannot be read; empty if all can."""
    return next((one.why for one in held if isinstance(one, Unread)), "")


def by_record(slices: Sequence[OpenSlice]) -> Joined:
    """The tensors of slices whose files say which piece of which whole each of them is.

    Raises
    ------
    RankscopeError
        If the slices hold different tensors or do not add up to them.
    """
    joined, first = Joined(), slices[0]
    check_names(slices)
    for name in sorted(first.names):
        shapes = {s.pieces[name].shape for s in slices if name in s.pieces}
        held = [s.tensors[name] for s in slices if name in s.tensors]
        if unread := _unread(held):
            joined.leave(name, held, unread)
        elif not shapes:
            joined.take_first(name, held)
        elif len(shapes) > 1:
            stated = " and ".join(map(str, sorted(shapes)))
            raise _fault(f"has the shape {stated} by different files", first, name)
        else:
            joined.tensors[name] = _recorded(name, shapes.pop(), slices)
            # Where there are more processes than rows, the last of them hold nothing.
            empty = (one for one in held if 0 in one.shape)
            joined.aside += [Classed(one, "part of", f"{name}, of no elements") for one in empty]
    return joined


def check_names(slices: Sequence[OpenSlice]) -> None:
    """Refuse files that do not hold the same tensors.

    Raises
    ------
    RankscopeError
        With the name of a tensor that one of them lacks.
    """
    for one in slices[1:]:
        odd = sorted(one.names ^ slices[0].names)
        if odd:
            message = "is not in all of the files, so they are not slices of one model"
            raise _fault(message, one if odd[0] in one.names else slices[0], odd[0])


def _whole(name: str, held: Sequence[Tensor], split: Split) -> Tensor:
    """The tensor that its slices join to."""
    path = held[0].paths[0]
    if len({tensor.shape for tensor in held}) > 1:
        shapes = " and ".join(str(list(s)) for s in sorted({t.shape for t in held}))
        raise RankscopeError(f"has slices of shapes {shapes}", path=path, tensor=name)
    shape = list(held[0].shape)
    if split.axis is not None:
        shape[split.axis] *= len(held)
    fits = len(shape) == len(split.shape) and all(
        wanted in (None, size) for size, wanted in zip(shape, split.shape, strict=True)
    )
    if not fits or (split.blocks > 1 and held[0].shape[0] % split.blocks):
        wanted = "×".join("any" if size is None else str(size) for size in split.shape)
        made = "×".join(map(str, shape))
        raise RankscopeError(
            f"joins to {made}, but the configuration has {wanted}", path=path, tensor=name
        )
    if split.axis is None or len(held) == 1:
        return held[0]
    pieces = _pieces_along(held, split.axis, split.blocks)
    return pieces_of(name, tuple(shape), pieces, path=path, kind=JoinedPieces)


def _pieces_along(held: Sequence[Tensor], axis: int, blocks: int) -> list[Piece]:
    """The slices one after the other along an axis; within each block, if there are several."""
    if blocks == 1:
        size, axes = held[0].shape[axis], range(len(held[0].shape))
        return [
            Piece(tuple(i * size if a == axis else 0 for a in axes), tensor)
            for i, tensor in enumerate(held)
        ]
    rows, columns = held[0].shape[0] // blocks, held[0].shape[1]
    region = Region.of((rows * blocks, columns))
    return [
        Piece(
            ((block * len(held) + i) * rows, 0),
            Part(tensor, region.part(block * rows, ((rows, 1),))),
        )
        for i, tensor in enumerate(held)
        for block in range(blocks)
    ]


def _recorded(name: str, shape: tuple[int, ...], slices: Sequence[OpenSlice]) -> Tensor:
    """The tensor of the pieces that the files state."""
    axes = {s.pieces[name].axis for s in slices if name in s.pieces}
    if len(axes) > 1:
        raise _fault("was split along different axes", slices[0], name)
    axis, at, pieces = axes.pop(), 0, []
    order = [s.pieces[name].index for s in slices if name in s.pieces]
    if None not in order and order != sorted({index for index in order if index is not None}):
        raise _fault("has its processes in another order than the files' names", slices[0], name)
    for one in slices:
        tensor = one.tensors.get(name)
        if tensor is None:
            continue
        stated = one.pieces[name].start if name in one.pieces else None
        if stated is None and axis is None:
            raise _fault("was split along several axes, or holds partial sums", one, name)
        start = tuple(at if a == axis else 0 for a in range(len(shape)))
        pieces.append(Piece(stated or start, tensor))
        at += 0 if axis is None else tensor.shape[axis]
    return pieces_of(name, shape, pieces, path=str(slices[0].path), kind=JoinedPieces)


def _fault(message: str, one: OpenSlice, name: str) -> RankscopeError:
    return RankscopeError(message, path=one.path, tensor=name)


def without_twins(joined: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[Classed]]:
    """Tensors without those stored under a second name, as tied embeddings are; and these."""
    kept: dict[str, Tensor] = {}
    twins: list[Classed] = []
    places: dict[tuple[object, ...], str] = {}
    for name, tensor in joined.items():
        place = _place(tensor)
        if place and place in places:
            twins.append(Classed(tensor, "part of", f"{places[place]}, stored under two names"))
        else:
            places[place] = name
            kept[name] = tensor
    return kept, twins


def _place(tensor: Tensor) -> tuple[object, ...]:
    """Where the elements of a joined tensor are; empty for one that is not joined."""
    pieces = getattr(tensor, "pieces", ())
    where = [(p.tensor.paths, getattr(p.tensor, "offset", None), p.start) for p in pieces]
    return tuple(where) if all(w[1] is not None for w in where) else ()
