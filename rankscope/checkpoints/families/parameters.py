"""From the tensors of a checkpoint to its parameters: split, turned and told apart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from rankscope.checkpoints.account import Classed, Rest
from rankscope.checkpoints.adapters.derived_tensors import (
    KhatriRao,
    Product,
    ScaledRows,
    is_derived,
)
from rankscope.checkpoints.contents import Adapter, Class, Delta, Parameter, Skip
from rankscope.checkpoints.families.axes import (
    Axes,
    axes_of,
    cuts,
    is_depthwise,
    parts_in_name,
)
from rankscope.checkpoints.families.family import Family, Fused
from rankscope.checkpoints.families.heads import Towers
from rankscope.checkpoints.families.neighbours import Neighbours, is_weight
from rankscope.checkpoints.families.no_maps import is_mask, why_no_map
from rankscope.checkpoints.families.places import Places, heads_of_axes
from rankscope.checkpoints.families.splitting import Rows, rows_of
from rankscope.checkpoints.regions import Part, Region
from rankscope.checkpoints.tensors import FLOATS, StoredTensor, Tensor

ADVICE = "name its axes in a family's table [axes]"


@dataclass
class Found:
    """Parameters of a checkpoint by name, and what became of everything else."""

    parameters: dict[str, Parameter] = field(default_factory=dict)
    skips: list[Skip] = field(default_factory=list)
    classed: list[Classed] = field(default_factory=list)

    @property
    def others(self) -> Rest:
        """What became of all that is not among the parameters."""
        return Rest({}, tuple(self.classed), tuple(self.skips))

    def leave(self, tensor: Tensor, kind: Class, reason: str) -> None:
        """Take note of a tensor that is not a parameter."""
        self.classed.append(Classed(tensor, kind, reason))

    def skip(self, tensor: Tensor, name: str, reason: str, message: str) -> None:
        """Take note of a tensor that may be a parameter and cannot be told for certain."""
        self.skips.append(Skip(tensor.paths[0], name, reason, message))
        self.leave(tensor, "not understood", message)


def parameters_of(
    tensors: Mapping[str, Tensor],
    family: Family,
    towers: Towers | None,
    adapters: Mapping[str, Delta] | None = None,
    *,
    factors: Mapping[str, tuple[str, Tensor]] | None = None,
    places: Places | None = None,
) -> Found:
    """Every weight matrix of a checkpoint, as (outputs, inputs).

    Fused tensors give one parameter a part, stacks of experts one an expert. A tensor that is
    stored under two names counts once; vectors and norms do not. What may be a matrix, and is not
    for certain, is skipped.

    Parameters
    ----------
    tensors
        By plain name.
    towers
        Attention heads of the model's towers; None where nothing states any.
    adapters
        By the module whose weight they change; one whose module has no tensor stands alone.
    factors
        Module and matrix of each factor that has an activation before or behind it, by name.
    places
        Of the whole model, where these are only some of its tensors.
    """
    found, waiting = Found(), dict(adapters or {})
    places = places or Places(tensors, family, towers, waiting)
    near = Neighbours(tensors)
    for name, tensor in _once(tensors, found).items():
        adapter = waiting.get(name.removesuffix(".weight"))
        axes = _axes(found, family, near, name, tensor)
        if axes is not None or (adapter is not None and tensor.dtype not in FLOATS):
            waiting.pop(name.removesuffix(".weight"), None)
            _add(found, family, places.parameter(name), (tensor, axes) if axes else None, adapter)
    for module, adapter in waiting.items():
        _add(found, family, places.parameter(f"{module}.weight"), None, adapter)
    for name, (module, factor) in (factors or {}).items():
        place = places.parameter(module)
        found.parameters[name] = replace(place, name=name, tensor=factor, is_factor=True)
    return found


def _axes(found: Found, family: Family, near: Neighbours, name: str, tensor: Tensor) -> Axes | None:
    """Axes of a tensor that holds matrices; None for any other, of which ``found`` takes note."""
    shape = tensor.shape
    if is_derived(tensor):  # it is (outputs, inputs), whatever files have
        return ("out", "in")
    if family.ignores(name.removesuffix(".weight")):
        found.leave(tensor, "no linear map", f"left out by the table of {family.name}")
    elif shape == (0,) and is_weight(name):
        message = "is empty, as ZeRO-3 leaves the weights of a model that it keeps in pieces"
        found.skip(tensor, name, "empty", message)
    elif tensor.dtype not in FLOATS:
        _leave_numbers(found, name, tensor)
    elif why := why_no_map(name, tensor, near):
        found.leave(tensor, "no linear map", why)
    elif is_depthwise(name, shape, near):
        found.leave(tensor, "no linear map", "a kernel for each channel, which mixes none")
    else:
        axes = axes_of(name, shape, family, near)
        if axes is None:
            message = f"has {len(shape)} axes {list(shape)}, and nothing says what they are: "
        elif "part" in axes and shape[axes.index("part")] != len(
            _roles_of_parts(name, shape, family)
        ):
            message = f"has the shape {list(shape)}, whose parts are not as many as are known: "
        else:
            return axes
        found.skip(tensor, name, "not-understood", f"{message}{ADVICE}")
    return None


def _leave_numbers(found: Found, name: str, tensor: Tensor) -> None:
    """Class a tensor that is not of floating-point numbers: a mask or index, or quantised."""
    if sum(size != 1 for size in tensor.shape) < 2:
        found.leave(tensor, "no linear map", "a counter or an index")
    elif is_mask(name, tensor):
        found.leave(tensor, "no linear map", "a mask or an index")
    else:
        message = f"is stored as {tensor.dtype}, which is not a plain weight: give it dequantised"
        found.skip(tensor, name, "quantised", message)


def _once(tensors: Mapping[str, Tensor], found: Found) -> dict[str, Tensor]:
    """The tensors without those that are stored under a second name, as tied embeddings are."""
    kept: dict[str, Tensor] = {}
    places: dict[StoredTensor, str] = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, StoredTensor) and 0 not in tensor.shape:
            first = places.setdefault(replace(tensor, name=""), name)
            if first != name:
                found.leave(tensor, "part of", f"the same storage as {first}")
                continue
        kept[name] = tensor
    return kept


def _add(
    found: Found,
    family: Family,
    place: Parameter,
    held: tuple[Tensor, Axes] | None,
    adapter: Delta | None,
) -> None:
    """Put every matrix of a tensor, or an adapter without one, among the parameters."""
    if held is not None and family.fused_in(place.module) is None:
        place = replace(place, heads=heads_of_axes(held[0].shape, held[1]) or place.heads)
    for one in (place,) if held is None else _iter_matrices(place, *held, family):
        if adapter is not None:
            one = _adapted(one, adapter, found, is_all=one.name == place.name)
            adapter = adapter if one.adapter is not None else None
        is_part = held is not None and "part" in held[1]
        for piece in (one,) if is_part else _split(one, family):
            found.parameters[piece.name] = piece


def _iter_matrices(
    whole: Parameter, tensor: Tensor, axes: Axes, family: Family
) -> Iterator[Parameter]:
    """A parameter for every matrix of a tensor; its indices or its part stand in brackets."""
    roles = _roles_of_parts(whole.name, tensor.shape, family)
    for cut in cuts(tensor, axes):
        indices = dict(cut.indices)
        part = indices.pop("part", None)
        labels = [*indices.values(), *(roles[part : part + 1] if part is not None else ())]
        yield replace(
            whole,
            name=whole.name + "".join(f"[{label}]" for label in labels),
            layer=indices.get("layer", whole.layer),
            role=whole.role if part is None else roles[part],
            expert=indices.get("expert", whole.expert),
            tensor=cut.matrix,
        )


def _roles_of_parts(name: str, shape: tuple[int, ...], family: Family) -> tuple[str, ...]:
    """Roles of what an axis called ``part`` numbers, as the family or the tensor's name has it."""
    fused = family.fused_in(name.removesuffix(".weight"))
    return fused.parts if fused is not None else parts_in_name(name, shape) or ()


def _adapted(one: Parameter, adapter: Delta, found: Found, *, is_all: bool) -> Parameter:
    """The parameter with its adapter; one that does not fit is skipped."""
    if one.tensor is None or (one.shape == adapter.shape and is_all):
        return replace(one, adapter=adapter)
    message = (
        f"its delta of shape {list(adapter.shape)} belongs to a weight of shape {list(one.shape)}"
    )
    first, *others = adapter.tensors
    found.skip(first, one.module, "adapter-misfit", message)
    for tensor in others:
        found.leave(tensor, "not understood", message)
    return one


def _split(one: Parameter, family: Family) -> Iterator[Parameter]:
    """Its parts where it is fused; itself where it is not, or its shape does not tell how."""
    fused = family.fused_in(one.module)
    one = _unrolled(one, fused)
    is_laid_out = not isinstance(one.tensor, Part) or len(one.tensor.region.rows) == 1
    rows = rows_of(fused, one.shape, one.heads) if fused is not None and is_laid_out else None
    if fused is None or rows is None:
        yield one
        return
    for role, which in rows.items():
        yield replace(
            one,
            name=f"{one.name}[{role}]",
            role=fused.role or role,
            tensor=None if one.tensor is None else _rows(one.tensor, which),
            adapter=None if one.adapter is None else _rows_of_delta(one.adapter, which),
        )


def _unrolled(one: Parameter, fused: Fused | None) -> Parameter:
    """A wide matrix that holds its parts one behind the other, laid out one below the other."""
    if fused is None or fused.split != "flat" or one.tensor is None or one.adapter is not None:
        return one
    rows, columns = one.shape
    if isinstance(one.tensor, Part) or columns % len(fused.parts):
        return one
    each = columns // len(fused.parts)
    return replace(one, tensor=Part(one.tensor, Region.of((rows * len(fused.parts), each))))


def _rows(tensor: Tensor, which: Rows) -> Tensor:
    """These rows of a matrix; those of a product are a product."""
    if isinstance(tensor, Product):
        return replace(tensor, left=_rows(tensor.left, which))
    if isinstance(tensor, KhatriRao) and not tensor.by_rows:
        return KhatriRao(_rows(tensor.first, which), _rows(tensor.second, which))
    if isinstance(tensor, ScaledRows):
        return ScaledRows(_rows(tensor.matrix, which), _rows(_column(tensor.numbers), which))
    if isinstance(tensor, Part):
        return Part(tensor.whole, tensor.region.part(*which))
    return Part(tensor, Region.of(tensor.shape).part(*which))


def _column(numbers: Tensor) -> Tensor:
    """Numbers one below the other."""
    if len(numbers.shape) == 2:
        return numbers
    return Part(numbers, Region.of((math.prod(numbers.shape), 1)))


def _rows_of_delta(adapter: Delta, which: Rows) -> Delta:
    """The adapter of these rows: those of B, and all of A; of a Kronecker product whole blocks."""
    if isinstance(adapter, Adapter):
        magnitude = adapter.magnitude
        if magnitude is not None and magnitude.shape[0] > 1:
            magnitude = _rows(magnitude, which)
        return replace(adapter, lora_B=_rows(adapter.lora_B, which), magnitude=magnitude)
    start, axes = which
    block = adapter.second.shape[0]
    if len(axes) == 1 and start % block == axes[0][0] % block == 0:
        rows = start // block, ((axes[0][0] // block, 1),)
        return replace(adapter, first=_rows(adapter.first, rows))
    return replace(adapter, rows=which)
