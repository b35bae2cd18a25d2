"""From the tensors of a checkpoint to its parameters: split, turned and told apart."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from rankscope.checkpoints.contents import Adapter, Parameter, Skip
from rankscope.checkpoints.families.family import Family, Fused
from rankscope.checkpoints.families.heads import Towers
from rankscope.checkpoints.families.places import Places, heads_of_axes
from rankscope.checkpoints.families.splitting import Rows, rows_of
from rankscope.checkpoints.tensors import FLOATS, Part, StoredTensor, Tensor, Window

MATRIX, STACK = 2, 3  # numbers of axes


@dataclass
class Found:
    """Parameters of a checkpoint by name, and what became of everything else."""

    parameters: dict[str, Parameter] = field(default_factory=dict)
    skips: list[Skip] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)  # name → why it is not a linear map


def parameters_of(
    tensors: Mapping[str, Tensor],
    family: Family,
    towers: Towers | None,
    adapters: Mapping[str, Adapter] | None = None,
    *,
    places: Places | None = None,
) -> Found:
    """Every weight matrix of a checkpoint, as (outputs, inputs).

    Fused tensors give one parameter a part, stacks of experts one an expert. A tensor that is
    stored under two names counts once; vectors and norms do not.

    Parameters
    ----------
    tensors
        By plain name.
    towers
        Attention heads of the model's towers; None where nothing states any.
    adapters
        By the module whose weight they change; one whose module has no tensor stands alone.
    places
        Of the whole model, where these are only some of its tensors.
    """
    found, waiting = Found(), dict(adapters or {})
    places = places or Places(tensors, family, towers, waiting)
    for name, tensor in _once(tensors).items():
        module = name.removesuffix(".weight")
        adapter = waiting.pop(module, None)
        if family.ignores(module) or not _is_matrix(tensor.shape):
            found.left_out[name] = "a norm, a position or a buffer"
        elif tensor.dtype not in FLOATS:
            message = f"is stored as {tensor.dtype}, which is no plain weight: give it dequantised"
            found.skips.append(Skip(tensor.paths[0], name, "quantised", message))
            if adapter is not None:
                _add(found, family, places.parameter(name), None, adapter)
        else:
            _add(found, family, places.parameter(name), tensor, adapter)
    for module, adapter in waiting.items():
        _add(found, family, places.parameter(f"{module}.weight"), None, adapter)
    return found


def _is_matrix(shape: tuple[int, ...]) -> bool:
    """Whether a tensor has more than one row and column, in whichever axes they are."""
    return sum(size != 1 for size in shape) >= MATRIX


def _once(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors without those that are stored under a second name, as tied embeddings are."""
    kept: dict[str, Tensor] = {}
    places = set()
    for name, tensor in tensors.items():
        if isinstance(tensor, StoredTensor):
            place = (tensor.path, tensor.offset, tensor.shape, tensor.strides)
            if place in places and 0 not in tensor.shape:
                continue
            places.add(place)
        kept[name] = tensor
    return kept


def _add(
    found: Found,
    family: Family,
    place: Parameter,
    tensor: Tensor | None,
    adapter: Adapter | None,
) -> None:
    module = place.module
    is_known = place.role != "other" or family.fused_in(module) is not None
    is_stack = is_known or "experts" in module.split(".")
    axes = None if tensor is None else family.axes_of(module, len(tensor.shape))
    if tensor is not None and family.fused_in(module) is None:
        place = replace(place, heads=heads_of_axes(tensor.shape, axes) or place.heads)
    for index, label, matrix in _matrices(
        tensor, axes, turned=family.is_transposed(module), is_stack=is_stack
    ):
        expert = place.expert if index is None else index
        one = replace(place, name=f"{place.name}{label}", expert=expert, tensor=matrix)
        if adapter is not None:
            one = _adapted(one, adapter, found.skips, is_stack=index is not None)
        for part in _split(one, family):
            found.parameters[part.name] = part


def _matrices(
    tensor: Tensor | None, axes: tuple[str, ...] | None, *, turned: bool, is_stack: bool
) -> Iterator[tuple[int | None, str, Tensor | None]]:
    """The matrices of a tensor as (outputs, inputs): index of the expert, label, matrix."""
    if tensor is None:
        yield None, "", None
    elif axes is not None:
        yield None, "", Part(tensor, _joined(tensor.shape, axes))
    elif len(tensor.shape) == STACK and is_stack:
        for index in range(tensor.shape[0]):
            window = Window.of(tensor.shape, index=index)
            yield index, f"[{index}]", Part(tensor, window.transposed() if turned else window)
    elif len(tensor.shape) > MATRIX:  # a convolution: the kernel of an output is its row
        flat = tensor.shape[0], math.prod(tensor.shape[1:])
        yield None, "", Part(tensor, Window.of(flat))
    else:
        yield None, "", Part(tensor, Window.of(tensor.shape).transposed()) if turned else tensor


def _joined(shape: tuple[int, ...], axes: tuple[str, ...]) -> Window:
    """A matrix of several axes of outputs, outermost first, and of inputs that lie together."""
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(axes))]
    laid = list(zip(axes, shape, strides, strict=True))
    rows, columns = (
        tuple((size, stride) for kind, size, stride in laid if kind == side)
        for side in ("out", "in")
    )
    if all(a == n * b for (_, a), (n, b) in itertools.pairwise(rows)):
        rows = ((math.prod(size for size, _ in rows), rows[-1][1]),)
    return Window(0, rows, (math.prod(size for size, _ in columns), columns[-1][1]))


def _adapted(one: Parameter, adapter: Adapter, skips: list[Skip], *, is_stack: bool) -> Parameter:
    """The parameter with its adapter; one that does not fit goes to ``skips``."""
    if one.tensor is None or (one.shape == adapter.shape and not is_stack):
        return replace(one, adapter=adapter)
    message = (
        f"its delta of shape {list(adapter.shape)} belongs to a weight of shape {list(one.shape)}"
    )
    skips.append(Skip(adapter.lora_A.paths[0], one.module, "adapter-misfit", message))
    return one


def _split(one: Parameter, family: Family) -> Iterator[Parameter]:
    """Its parts where it is fused; itself where it is not, or its shape does not tell how."""
    fused = family.fused_in(one.module)
    one = _unrolled(one, fused)
    rows = None if fused is None else rows_of(fused, one.shape, one.heads)
    if rows is None:
        yield one
        return
    for role, which in rows.items():
        yield replace(
            one,
            name=f"{one.name}[{role}]",
            role=fused.role or role if fused is not None else role,
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
    return replace(one, tensor=Part(one.tensor, Window.of((rows * len(fused.parts), each))))


def _rows(tensor: Tensor, which: Rows) -> Part:
    """These rows of a matrix."""
    if isinstance(tensor, Part):
        return Part(tensor.whole, tensor.window.part(*which))
    return Part(tensor, Window.of(tensor.shape).part(*which))


def _rows_of_delta(adapter: Adapter, which: Rows) -> Adapter:
    """The adapter of these rows: those of B, and all of A."""
    return replace(adapter, lora_B=_rows(adapter.lora_B, which))
