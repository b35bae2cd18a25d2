"""Slices of a parallel training joined to the tensors that its model has.

Two ways are certain enough: the files say themselves which piece of what each of them holds
(`by_record`), or a rule says by the tensor's name along which axis it was cut, and the model's
configuration what shape must come out (`by_rule`). What it costs when a rule errs: a matrix whose
rows or columns are in another order has the same singular values, but the parts of a fused one
would be mixed; slices of different cuts put together would be a matrix that no model has, which is
what the shapes are checked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from rankscope.checkpoints.account import Classed
from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.files.opened_file import Unread
from rankscope.checkpoints.files.slice_file import OpenSlice
from rankscope.checkpoints.pieces import JoinedPieces, Piece, pieces_of
from rankscope.checkpoints.tensors import Part, Region, Tensor
from rankscope.errors import RankscopeError

MATRIX = 2  # axes
NO_RULE = "no rule says how they are joined: it is not measured"


@dataclass(frozen=True)
class Cut:
    """How a tensor was cut, and what it has to be as a whole.

    Attributes
    ----------
    axis
        Along which it was cut; None where every process held all of it.
    shape
        That the configuration gives the whole; None for a side that it does not state.
    blocks
        Of how many blocks of rows each slice has a part, one part below the other: 2 for a gate
        and an up projection in one.
    """

    axis: int | None
    shape: tuple[int | None, ...]
    blocks: int = 1


Rule = Callable[[str, tuple[int, ...]], Cut | None]  # of a tensor's name and its slice's shape


@dataclass
class Joined:
    """The tensors of the whole model, and what could not be joined."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    skips: list[Skip] = field(default_factory=list)
    aside: list[Classed] = field(default_factory=list)

    def add(self, other: Joined, rename: Callable[[str], str]) -> None:
        """Take in those of another part of the model under other names."""
        self.tensors |= {rename(name): tensor for name, tensor in other.tensors.items()}
        self.skips += other.skips
        self.aside += other.aside

    def take_first(self, name: str, held: Sequence[Tensor]) -> None:
        """Take the first process's of what all of them held; the others are copies of it."""
        self.tensors[name], *copies = held
        is_matrix = len(held[0].shape) >= MATRIX
        for one in copies:
            if is_matrix:
                reason = f"{name}, as each process held it: that of the first is measured"
                self.aside.append(Classed(one, "part of", reason))
            else:
                self.aside.append(Classed(one, "no linear map", f"{name} of another process"))

    def leave(self, name: str, held: Sequence[Tensor], message: str) -> None:
        """Set a tensor that is not joined aside, with a skip."""
        self.skips.append(Skip(held[0].paths[0], name, "slices", message))
        self.aside += [Classed(one, "not understood", message) for one in held]


def by_rule(slices: Sequence[OpenSlice], rule: Rule) -> Joined:
    """The tensors of slices that were cut by a rule.

    A matrix that the rule does not know is set aside with a skip. Of anything else, such as a
    norm, the first process's is taken: it is not measured.

    Raises
    ------
    RankscopeError
        If the slices hold different tensors, or what is joined has not the shape that it has to
        have.
    """
    found, first = Joined(), slices[0]
    check_names(slices)
    for name, tensor in first.tensors.items():
        cut, held = rule(name, tensor.shape), [s.tensors[name] for s in slices]
        if len(slices) == 1:
            found.tensors[name] = tensor if cut is None else _whole(name, held, cut)
        elif unread := _unread(held):
            found.leave(name, held, unread)
        elif cut is not None and cut.axis is not None:
            found.tensors[name] = _whole(name, held, cut)
        elif cut is not None:
            _whole(name, held, cut)
            found.take_first(name, held)
        elif len(tensor.shape) < MATRIX:
            found.take_first(name, held)
        else:
            found.leave(name, held, f"is in {len(slices)} slices, and {NO_RULE}")
    return found


def _unread(held: Sequence[Tensor]) -> str:
    """Why a tensor cannot be joined for the numbers of one of its slices; empty if it can."""
    return next((one.why for one in held if isinstance(one, Unread)), "")


def by_record(slices: Sequence[OpenSlice]) -> Joined:
    """The tensors of slices whose files say of which whole each of them is a piece.

    Raises
    ------
    RankscopeError
        If the slices hold different tensors, or do not make them up.
    """
    found, first = Joined(), slices[0]
    check_names(slices)
    for name in sorted(first.names):
        shapes = {s.pieces[name].shape for s in slices if name in s.pieces}
        held = [s.tensors[name] for s in slices if name in s.tensors]
        if unread := _unread(held):
            found.leave(name, held, unread)
        elif not shapes:
            found.take_first(name, held)
        elif len(shapes) > 1:
            raise _fault(f"is of shape {' and of '.join(map(str, shapes))}", first, name)
        else:
            found.tensors[name] = _recorded(name, shapes.pop(), slices)
            # Where there are more processes than rows, the last of them hold nothing.
            empty = (one for one in held if 0 in one.shape)
            found.aside += [Classed(one, "part of", f"{name}, of no elements") for one in empty]
    return found


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
            message = "is not in each of the files, so that they are parts and not slices alike"
            raise _fault(message, one if odd[0] in one.names else slices[0], odd[0])


def _whole(name: str, held: Sequence[Tensor], cut: Cut) -> Tensor:
    """The tensor of its slices, as it was cut."""
    path = held[0].paths[0]
    if len({tensor.shape for tensor in held}) > 1:
        shapes = " and ".join(str(list(s)) for s in sorted({t.shape for t in held}))
        raise RankscopeError(f"has slices of shapes {shapes}", path=path, tensor=name)
    shape = list(held[0].shape)
    if cut.axis is not None:
        shape[cut.axis] *= len(held)
    fits = len(shape) == len(cut.shape) and all(
        wanted in (None, size) for size, wanted in zip(shape, cut.shape, strict=True)
    )
    if not fits or (cut.blocks > 1 and held[0].shape[0] % cut.blocks):
        wanted = "×".join("any" if size is None else str(size) for size in cut.shape)
        made = "×".join(map(str, shape))
        raise RankscopeError(
            f"joins to {made}, where the configuration has {wanted}", path=path, tensor=name
        )
    if cut.axis is None or len(held) == 1:
        return held[0]
    pieces = _cut_pieces(held, cut.axis, cut.blocks)
    return pieces_of(name, tuple(shape), pieces, path=path, kind=JoinedPieces)


def _cut_pieces(held: Sequence[Tensor], axis: int, blocks: int) -> list[Piece]:
    """The slices one behind the other along an axis, in each of so many blocks."""
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
        raise _fault("was cut along different axes", slices[0], name)
    axis, at, pieces = axes.pop(), 0, []
    places = [s.pieces[name].place for s in slices if name in s.pieces]
    if None not in places and places != sorted({place for place in places if place is not None}):
        raise _fault("is of processes in another order than the files' names", slices[0], name)
    for one in slices:
        tensor = one.tensors.get(name)
        if tensor is None:
            continue
        stated = one.pieces[name].start if name in one.pieces else None
        if stated is None and axis is None:
            raise _fault("was cut along several axes, or holds partial sums", one, name)
        start = tuple(at if a == axis else 0 for a in range(len(shape)))
        pieces.append(Piece(stated or start, tensor))
        at += 0 if axis is None else tensor.shape[axis]
    return pieces_of(name, shape, pieces, path=str(slices[0].path), kind=JoinedPieces)


def _fault(message: str, one: OpenSlice, name: str) -> RankscopeError:
    return RankscopeError(message, path=one.path, tensor=name)


def without_twins(joined: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[Classed]]:
    """The tensors without those that are stored under a second name, as tied embeddings are."""
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
    """Where all of a joined tensor's elements lie; empty for one that is not joined."""
    pieces = getattr(tensor, "pieces", ())
    where = [(p.tensor.paths, getattr(p.tensor, "offset", None), p.start) for p in pieces]
    return tuple(where) if all(w[1] is not None for w in where) else ()
