"""From the tensors of a checkpoint to its parameters: split, turned and told apart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from rankscope.checkpoints.adapters.derived_tensors import (
    KhatriRao,
    Product,
    ScaledRows,
    is_derived,
)
from rankscope.checkpoints.contents import Adapter, Delta, Heads, Parameter, Skip
from rankscope.checkpoints.families.family import Family
from rankscope.checkpoints.families.names import expert_of, layer_of
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
    heads: Heads | None,
    adapters: Mapping[str, Delta] | None = None,
    factors: Mapping[str, tuple[str, Tensor]] | None = None,
) -> Found:
    """Every weight matrix of a checkpoint, as (outputs, inputs).

    Fused tensors give one parameter a part, stacks of experts one an expert. A tensor that is
    stored under two names counts once; vectors and norms do not.

    Parameters
    ----------
    tensors
        By plain name.
    adapters
        By the module whose weight they change; one whose module has no tensor stands alone.
    factors
        Module and matrix of each factor that has an activation before or behind it, by name.
    """
    found, waiting = Found(), dict(adapters or {})
    for name, tensor in _once(tensors).items():
        module = name.removesuffix(".weight")
        adapter = waiting.pop(module, None)
        if family.ignores(module) or not _is_matrix(tensor.shape):
            found.left_out[name] = "a norm, a position or a buffer"
        elif tensor.dtype not in FLOATS:
            message = f"is stored as {tensor.dtype}, which is no plain weight: give it dequantised"
            found.skips.append(Skip(tensor.paths[0], name, "quantised", message))
            if adapter is not None:
                _add(found, family, heads, name, None, adapter)
        else:
            _add(found, family, heads, name, tensor, adapter)
    for module, adapter in waiting.items():
        _add(found, family, heads, f"{module}.weight", None, adapter)
    for name, (module, factor) in (factors or {}).items():
        layer, expert, role = layer_of(module), expert_of(module), family.role_of(module)
        found.parameters[name] = Parameter(
            name, module, layer, role, expert, factor, is_factor=True
        )
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
    heads: Heads | None,
    name: str,
    tensor: Tensor | None,
    adapter: Delta | None,
) -> None:
    module = name.removesuffix(".weight")
    layer, expert, role = layer_of(module), expert_of(module), family.role_of(module)
    is_known = role != "other" or family.fused_in(module) is not None
    is_stack = is_known or "experts" in module.split(".")
    # What is derived is (outputs, inputs), whatever files have.
    turned = family.is_transposed(module) and not (tensor is not None and is_derived(tensor))
    for index, label, matrix in _matrices(tensor, turned=turned, is_stack=is_stack):
        one = Parameter(
            f"{name}{label}", module, layer, role, expert if index is None else index, matrix
        )
        if adapter is not None:
            one = _adapted(one, adapter, found.skips, is_stack=index is not None)
        for part in _split(one, family, heads):
            found.parameters[part.name] = part


def _matrices(
    tensor: Tensor | None, *, turned: bool, is_stack: bool
) -> Iterator[tuple[int | None, str, Tensor | None]]:
    """The matrices of a tensor as (outputs, inputs): index of the expert, label, matrix."""
    if tensor is None:
        yield None, "", None
    elif len(tensor.shape) == STACK and is_stack:
        for index in range(tensor.shape[0]):
            window = Window.of(tensor.shape, index=index)
            yield index, f"[{index}]", Part(tensor, window.transposed() if turned else window)
    elif len(tensor.shape) > MATRIX:  # a convolution: the kernel of an output is its row
        flat = tensor.shape[0], math.prod(tensor.shape[1:])
        yield None, "", Part(tensor, Window.of(flat))
    else:
        yield None, "", Part(tensor, Window.of(tensor.shape).transposed()) if turned else tensor


def _adapted(one: Parameter, adapter: Delta, skips: list[Skip], *, is_stack: bool) -> Parameter:
    """The parameter with its adapter; one that does not fit goes to ``skips``."""
    if one.tensor is None or (one.shape == adapter.shape and not is_stack):
        return replace(one, adapter=adapter)
    message = (
        f"its delta of shape {list(adapter.shape)} belongs to a weight of shape {list(one.shape)}"
    )
    skips.append(Skip(adapter.tensors[0].paths[0], one.module, "adapter-misfit", message))
    return one


def _split(one: Parameter, family: Family, heads: Heads | None) -> Iterator[Parameter]:
    """Its parts where it is fused; itself where it is not, or its shape does not tell how."""
    fused = family.fused_in(one.module)
    rows = None if fused is None else rows_of(fused, one.shape, heads)
    if rows is None:
        yield one
        return
    for role, which in rows.items():
        yield replace(
            one,
            name=f"{one.name}[{role}]",
            role=role,
            tensor=None if one.tensor is None else _rows(one.tensor, which),
            adapter=None if one.adapter is None else _rows_of_delta(one.adapter, which),
        )


def _rows(tensor: Tensor, which: Rows) -> Tensor:
    """These rows of a matrix; those of a product are a product."""
    if isinstance(tensor, Product):
        return replace(tensor, left=_rows(tensor.left, which))
    if isinstance(tensor, KhatriRao) and not tensor.by_rows:
        return KhatriRao(_rows(tensor.first, which), _rows(tensor.second, which))
    if isinstance(tensor, ScaledRows):
        return ScaledRows(_rows(tensor.matrix, which), _rows(_column(tensor.numbers), which))
    if isinstance(tensor, Part):
        return Part(tensor.whole, tensor.window.part(*which))
    return Part(tensor, Window.of(tensor.shape).part(*which))


def _column(numbers: Tensor) -> Tensor:
    """Numbers one below the other."""
    if len(numbers.shape) == MATRIX:
        return numbers
    return Part(numbers, Window.of((math.prod(numbers.shape), 1)))


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
