"""The parameters of a checkpoint: every matrix in its tensors, as (outputs, inputs)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from rankscope.checkpoints.account import Classed, Rest
from rankscope.checkpoints.adapters.composed_tensors import (
    is_composed,
)
from rankscope.checkpoints.contents import Class, Delta, Parameter, Skip
from rankscope.checkpoints.families.axes import (
    Axes,
    NumberedMatrix,
    axes_of,
    matrices_of,
    parts_in_name,
)
from rankscope.checkpoints.families.convolutions import SINGLE, why_separate
from rankscope.checkpoints.families.coordinates import Coordinates, heads_of_axes
from rankscope.checkpoints.families.family import Family, Fused
from rankscope.checkpoints.families.group_tables import groups_of, matrices_of_groups
from rankscope.checkpoints.families.heads import Towers
from rankscope.checkpoints.families.neighbours import Neighbours, is_weight
from rankscope.checkpoints.families.no_maps import is_mask, why_no_map
from rankscope.checkpoints.families.splitting import parts_of_fused
from rankscope.checkpoints.tensors import FLOATS, StoredTensor, Tensor, not_floats

PLAIN: Axes = ("out", "in")
ADVICE = "name its axes in a family's table [axes]"


class _Judged(NamedTuple):
    """What the rules make of a tensor.

    Attributes
    ----------
    axes
        Those of its matrices; None if it has none.
    fused
        How its rows hold several matrices; None for a single one.
    groups
        Into how many groups its outputs are divided; 0 if nothing states it.
    reason
        Why it has none.
    code
        That of the skip, where it may have some all the same.
    """

    axes: Axes | None = None
    fused: Fused | None = None
    groups: int = 0
    reason: str = ""
    code: str = ""


@dataclass
class FoundParameters:
    """The parameters of a checkpoint by name, and the classes of all other tensors."""

    parameters: dict[str, Parameter] = field(default_factory=dict)
    skips: list[Skip] = field(default_factory=list)
    classed: list[Classed] = field(default_factory=list)

    @property
    def others(self) -> Rest:
        """The classes and skips of all tensors that are not parameters."""
        return Rest({}, tuple(self.classed), tuple(self.skips))

    def leave(self, tensor: Tensor, kind: Class, reason: str) -> None:
        """Record a tensor that is not a parameter."""
        self.classed.append(Classed(tensor, kind, reason))

    def record(self, name: str, tensor: Tensor, judged: _Judged) -> None:
        """Record a tensor without matrices, as it was judged."""
        if judged.code:
            self.skip(tensor, name, judged.code, judged.reason)
        else:
            self.leave(tensor, "no linear map", judged.reason)

    def skip(self, tensor: Tensor, name: str, reason: str, message: str) -> None:
        """Record a tensor that may be a parameter, which is not certain."""
        self.skips.append(Skip(tensor.paths[0], name, reason, message))
        self.leave(tensor, "not understood", message)


@dataclass(frozen=True)
class _Held:
    """A tensor that holds matrices, its axes, and into how many groups its outputs are divided."""

    tensor: Tensor
    axes: Axes
    groups: int

    @property
    def is_plain(self) -> bool:
        return self.axes == PLAIN and self.groups < 2

    def matrices(self) -> Iterator[NumberedMatrix]:
        if self.groups > 1:
            return matrices_of_groups(self.tensor, self.groups)
        return matrices_of(self.tensor, self.axes)


def parameters_of(
    tensors: Mapping[str, Tensor],
    family: Family,
    towers: Towers | None,
    adapters: Mapping[str, Delta] | None = None,
    *,
    factors: Mapping[str, tuple[str, Tensor]] | None = None,
    coordinates: Coordinates | None = None,
    near: Neighbours | None = None,
) -> FoundParameters:
    """Every weight matrix of a checkpoint, as (outputs, inputs).

    Fused tensors give one parameter per part, stacks of experts one per expert. A tensor that is
    stored under two names counts once; vectors and norms do not count. What may be a matrix but is
    not certain to be one is skipped.

    Parameters
    ----------
    tensors
        By plain name.
    towers
        Attention heads of the model's towers; None if unknown.
    adapters
        By the module whose weight they change; without a tensor of the module, one stands alone.
    factors
        Module and matrix of each factor before or after an activation, by name.
    coordinates
        Those of the whole model, if these are only some of its tensors.
    near
        The neighbours of the tensors, if they are known.
    """
    found, waiting = FoundParameters(), dict(adapters or {})
    coordinates = coordinates or Coordinates(tensors, family, towers, waiting)
    near = near or Neighbours(tensors, family.tells_apart)
    known: dict[str, _Judged] = {}
    for name, tensor in _once(tensors, found).items():
        first = near.first_alike[name]
        judged = known.get(first)
        if judged is None:
            judged = known[first] = _judged(first, tensor, family, near, towers)
        module = name.removesuffix(".weight")
        adapter = waiting.get(module)
        if judged.axes is None:
            found.record(name, tensor, judged)
            if adapter is None or tensor.dtype in FLOATS:
                continue
        waiting.pop(module, None)
        held = _Held(tensor, judged.axes, judged.groups) if judged.axes else None
        # Of others, the parts are parameters.
        own = tensor if held is not None and held.is_plain else None
        whole = coordinates.parameter(name, own)
        if own is not None and adapter is None and judged.fused is None:
            found.parameters[name] = whole
        else:
            _add(found, family, whole, held=held, adapter=adapter)
    for module, adapter in waiting.items():
        whole = coordinates.parameter(f"{module}.weight")
        _add(found, family, whole, held=None, adapter=adapter)
    for name, (module, factor) in (factors or {}).items():
        parameter = coordinates.parameter(module)
        found.parameters[name] = parameter._replace(name=name, tensor=factor, is_factor=True)
    return found


def deltas_alone(
    adapters: Mapping[str, Delta],
    *,
    family: Family,
    towers: Towers | None = None,
    coordinates: Coordinates | None = None,
) -> Mapping[str, Parameter]:
    """The parameters that deltas belong to, without their weights; arguments as above."""
    found = parameters_of({}, family, towers, adapters, coordinates=coordinates)
    return found.parameters


def _judged(
    name: str, tensor: Tensor, family: Family, near: Neighbours, towers: Towers | None
) -> _Judged:
    """What a tensor is: the axes of its matrices, or why it has none."""
    module, shape = name.removesuffix(".weight"), tensor.shape
    fused, groups = family.fused_in(module), groups_of(module, towers)
    if is_composed(tensor):  # however its parts are stored
        return _Judged(PLAIN, fused, groups)
    if groups and is_weight(name) and len(shape) > 1 and tensor.dtype in FLOATS:
        if shape[0] % groups:
            message = f"has {shape[0]} rows, and the config states {groups} groups"
            return _Judged(reason=message, code="config-mismatch")
        if len(shape) > 2 and shape[1] == 1 < groups:
            return _Judged(reason=SINGLE)
        return _Judged(("out", *["in"] * (len(shape) - 1)), fused, groups)
    if family.ignores(module):
        return _Judged(reason=f"left out by the table of {family.name}")
    if shape == (0,) and is_weight(name):
        message = "is empty, as ZeRO-3 leaves the weights that it keeps in pieces"
        return _Judged(reason=message, code="empty")
    if tensor.dtype not in FLOATS:
        return _of_numbers(name, tensor)
    if why := why_no_map(name, tensor, near) or _why_separate(name, shape, family, near):
        return _Judged(reason=why)
    axes = axes_of(name, shape, family, near)
    if axes is None:
        message = f"has {len(shape)} axes {list(shape)}, and nothing says what they are: {ADVICE}"
        return _Judged(reason=message, code="not-understood")
    if "part" in axes and shape[axes.index("part")] != len(_roles_of_parts(name, shape, family)):
        message = f"has the shape {list(shape)}, which does not have one entry per known part: "
        return _Judged(reason=f"{message}{ADVICE}", code="not-understood")
    return _Judged(axes, fused, groups)


def _why_separate(name: str, shape: tuple[int, ...], family: Family, near: Neighbours) -> str:
    """Why no matrix mixes the channels of a tensor; empty if the family states its axes."""
    is_stated = family.axes_of(name.removesuffix(".weight"), len(shape)) is not None
    return "" if is_stated else why_separate(name, shape, near)


def _of_numbers(name: str, tensor: Tensor) -> _Judged:
    """What a tensor is that is not of floating-point numbers: a mask, an index, or quantised."""
    if sum(size != 1 for size in tensor.shape) < 2:
        return _Judged(reason="a counter or an index")
    if is_mask(name, tensor):
        return _Judged(reason="a mask or an index")
    return _Judged(reason=not_floats(tensor.dtype), code="quantised")


def _once(tensors: Mapping[str, Tensor], found: FoundParameters) -> Mapping[str, Tensor]:
    """The tensors without second names of the same storage, as of tied embeddings."""
    starts = [(t.path, t.offset) for t in tensors.values() if isinstance(t, StoredTensor)]
    if len({*starts}) == len(starts):
        return tensors
    kept: dict[str, Tensor] = {}
    names: dict[tuple[object, ...], str] = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, StoredTensor) and 0 not in tensor.shape:
            place = tensor.path, tensor.offset, tensor.dtype, tensor.shape, tensor.strides
            first = names.setdefault(place, name)
            if first != name:
                found.leave(tensor, "part of", f"the same storage as {first}")
                continue
        kept[name] = tensor
    return kept


def _add(
    found: FoundParameters,
    family: Family,
    whole: Parameter,
    *,
    held: _Held | None,
    adapter: Delta | None,
) -> None:
    """Add every matrix of a tensor, or an adapter without a tensor, to the parameters."""
    if held is not None and family.fused_in(whole.module) is None:
        heads = heads_of_axes(held.tensor.shape, held.axes)
        whole = whole if heads is None else whole._replace(heads=heads)
    matrices = (whole,) if held is None else tuple(_iter_matrices(whole, held, family))
    if adapter is not None:
        if held is not None and _is_misfit(matrices, whole.name, adapter, held.tensor, found=found):
            return
        matrices = tuple(one._replace(adapter=adapter) for one in matrices)
    for one in matrices:
        is_part = held is not None and "part" in held.axes
        for piece in (one,) if is_part else parts_of_fused(one, family):
            found.parameters[piece.name] = piece


def _iter_matrices(whole: Parameter, held: _Held, family: Family) -> Iterator[Parameter]:
    """A parameter for every matrix of a tensor, with its indices or its part in brackets."""
    if held.is_plain:
        yield whole
        return
    roles = _roles_of_parts(whole.name, held.tensor.shape, family)
    for matrix in held.matrices():
        indices = dict(matrix.indices)
        part = indices.pop("part", None)
        labels = [*indices.values(), *(roles[part : part + 1] if part is not None else ())]
        yield whole._replace(
            name=whole.name + "".join(f"[{label}]" for label in labels),
            layer=indices.get("layer", whole.layer),
            role=whole.role if part is None else roles[part],
            expert=indices.get("expert", whole.expert),
            tensor=matrix.matrix,
        )


def _roles_of_parts(name: str, shape: tuple[int, ...], family: Family) -> tuple[str, ...]:
    """Roles of the parts that an axis numbers, by the family or by the name of the tensor."""
    fused = family.fused_in(name.removesuffix(".weight"))
    return fused.parts if fused is not None else parts_in_name(name, shape) or ()


def _is_misfit(
    matrices: tuple[Parameter, ...],
    name: str,
    adapter: Delta,
    tensor: Tensor,
    *,
    found: FoundParameters,
) -> bool:
    """Whether a delta does not fit its weight, which without it is not what the model uses."""
    shapes = {one.name: one.shape for one in matrices}
    if shapes == {name: adapter.shape}:
        return False
    shape = next(iter(shapes.values()), tensor.shape)
    message = f"its delta of shape {list(adapter.shape)} belongs to a weight of shape {list(shape)}"
    first, *others = adapter.tensors
    found.skip(first, name.removesuffix(".weight"), "adapter-misfit", message)
    for one in (*others, tensor):
        found.leave(one, "not understood", message)
    return True
