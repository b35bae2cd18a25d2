"""Which axes of a tensor are outputs and which inputs, and the matrices that it holds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from rankscope.checkpoints.families.convolutions import KERNEL, is_convolution, is_kernel
from rankscope.checkpoints.families.family import Family
from rankscope.checkpoints.families.family_files import INDICES
from rankscope.checkpoints.families.neighbours import (
    Neighbours,
    Shape,
    is_weight,
    own_part,
    words,
)
from rankscope.checkpoints.regions import Part, Region
from rankscope.checkpoints.tensors import Axis, Tensor

Axes = tuple[str, ...]
OF_VOLUMES = 5  # how many axes the weight of a convolution of volumes has

LETTERS = {"qkvo": ("q", "k", "v", "o"), "qkv": ("q", "k", "v"), "kv": ("k", "v")}


@dataclass(frozen=True)
class NumberedMatrix:
    """One matrix of a tensor, as (outputs, inputs).

    Attributes
    ----------
    indices
        Its index along each axis that numbers matrices: ``layer``, ``expert``, ``part``.
    """

    matrix: Tensor
    indices: Mapping[str, int] = field(default_factory=dict)


def axes_of(name: str, shape: Shape, family: Family, near: Neighbours) -> Axes | None:
    """What each axis of a tensor is: ``out``, ``in``, or what numbers its matrices.

    Two axes are outputs and inputs, unless the family has them the other way round. More axes are
    what the family's table says; else a stack of experts in a module of experts, a convolution if
    name, neighbours or shape say so, or q, k and v one after the other in a tensor of that name.
    The cost of an error is high: rows and columns are mixed up, and the number is that of another
    matrix. So each rule asks for more than one sign where it can.

    Returns
    -------
    One word per axis; None if nothing says what the axes are, so that the tensor is not measured.
    """
    module = name.removesuffix(".weight")
    stated = family.axes_of(module, len(shape))
    if stated is not None:
        return stated
    turned = family.is_transposed(module)
    if len(shape) == 2:
        return ("in", "out") if _is_turned(name, shape, near, stated=turned) else ("out", "in")
    if len(shape) == 3 and _is_stack_of_experts(name, shape, near):
        is_turned = _is_turned_stack(name, shape, family, near)
        return ("expert", "in", "out") if is_turned else ("expert", "out", "in")
    if len(shape) == 3 and parts_in_name(name, shape) is not None:
        return ("part", "out", "in")
    return _contracted(name, shape, near)


def parts_in_name(name: str, shape: Shape) -> tuple[str, ...] | None:
    """Roles of the matrices in a tensor called ``qkv`` or similar; None for other tensors.

    The first axis must have as many entries as there are letters, and the matrices must be square:
    ``qkv`` of (3, width, width) can mean nothing else.
    """
    if len(shape) != 3 or shape[1] != shape[2]:
        return None
    said = {word.removeprefix("w") for word in words(own_part(name))}
    found = (parts for letters, parts in LETTERS.items() if letters in said)
    return next((parts for parts in found if len(parts) == shape[0]), None)


def matrices_of(tensor: Tensor, axes: Axes) -> Iterator[NumberedMatrix]:
    """The matrices of a tensor with these axes, in the order of their indices."""
    if axes == ("out", "in"):
        yield NumberedMatrix(tensor)
        return
    strides = [math.prod(tensor.shape[axis + 1 :]) for axis in range(len(axes))]
    laid = list(zip(axes, tensor.shape, strides, strict=True))
    rows, columns = (
        _merged([(size, stride) for kind, size, stride in laid if kind == side])
        for side in ("out", "in")
    )
    numbered = [one for one in laid if one[0] in INDICES]
    for indices in itertools.product(*(range(size) for _, size, _ in numbered)):
        pairs = list(zip(indices, numbered, strict=True))
        start = sum(index * stride for index, (_, _, stride) in pairs)
        region = Region(start, rows, columns[0])
        yield NumberedMatrix(Part(tensor, region), {kind: index for index, (kind, _, _) in pairs})


def _contracted(name: str, shape: Shape, near: Neighbours) -> Axes | None:
    """Axes of a tensor whose first or last axes are inputs: a convolution, or heads.

    A bias has the axes of the outputs, which come first in torch and last in JAX. Without one, the
    name may say that it is a convolution, except for five axes of which the first is 1 and the
    third is longer than the last two: each image may have kernels of its own, as in StyleGAN 2. A
    weight without a bias also is a convolution if it has four or more axes and the last are those
    of a kernel, or are all 1.
    """
    first, last = (("out", *["in"] * (len(shape) - 1)), (*["in"] * (len(shape) - 1), "out"))
    bias = next(iter(near.biases_of(name)), ())
    is_jax = name.endswith(".kernel")
    if bias and not is_jax and bias == shape[:1]:
        return first if bias != shape[-1:] or shape[-1] <= KERNEL else None
    if bias and not is_jax and bias == shape[1:2] and shape[-1] <= KERNEL:
        return first  # a transposed convolution: the spectrum is the same
    count = len(bias)
    if 0 < count < len(shape) and bias == shape[-count:]:
        return (*["in"] * (len(shape) - count), *["out"] * count)
    kernel = shape[:-2] if is_jax else shape[2:]
    if is_convolution(name):
        is_modulated = shape[0] == 1 and len(shape) == OF_VOLUMES and kernel[0] > max(kernel[1:])
        return None if is_modulated else last if is_jax else first
    if not bias and is_weight(name) and (is_kernel(kernel) or math.prod(kernel) == 1):
        return last if is_jax else first
    return None


def _is_stack_of_experts(name: str, shape: Shape, near: Neighbours) -> bool:
    """Whether the first axis of a tensor numbers experts, by the name of its module or a router.

    A router has one row per expert and is in the same module; or in the module around it, if the
    experts have a side as long as its inputs. The number of a single expert in the name, or the
    name of a convolution, rules it out. An error: each kernel of a convolution is taken for a
    matrix.
    """
    if is_convolution(name):
        return False
    parts = name.split(".")
    for part, after in zip(parts, [*parts[1:], ""], strict=True):
        is_numbered = after.isdigit() or any(map(str.isdigit, part))
        if {"expert", "experts"} & {*words(part)} and not is_numbered:
            return True
    above = parts[: -2 if parts[-1] == "weight" else -1]
    if _has_router(".".join(above), shape, near):
        return True
    around = ".".join(above[:-1])
    return around != "" and _has_router(around, shape, near, inputs=shape[1:])


def _is_turned(name: str, shape: Shape, near: Neighbours, *, stated: bool) -> bool:
    """Whether a matrix is stored (inputs, outputs): as its bias says, which has its outputs.

    If it is square, as the biases beside it say of the others in its attention or MLP. Without a
    bias, or if those differ, it is as the family has it.
    """
    bias = next((b for b in near.biases_of(name) if len(b) == 1 and b[0] in shape), None)
    if bias is None:
        return stated
    if shape[0] != shape[1]:
        return bias == shape[1:]
    said = near.turned_within(name.rsplit(".", 2)[0])
    return stated if len(said) != 1 else True in said


def _is_turned_stack(name: str, shape: Shape, family: Family, near: Neighbours) -> bool:
    """Whether experts are stored (inputs, outputs): as their bias or their router says.

    A bias has their outputs, a router their inputs. Without a bias, and if their role is not known,
    or if both sides are as long, it is as the family has it.
    """
    module = name.removesuffix(".weight")
    outputs = {b[-1] for b in near.biases_of(name) if len(b) == 2 and b[0] == shape[0]}
    if len(outputs & {*shape[1:]}) == 1 and shape[1] != shape[2]:
        return shape[2] in outputs
    fused = family.fused_in(module)
    role = family.role_of(module) if fused is None else fused.parts[0]
    above = module.rpartition(".")[0]
    routers = near.routers_within(above) | near.routers_within(above.rpartition(".")[0])
    widths = {columns for rows, columns in routers if rows == shape[0]} & {*shape[1:]}
    if role not in ("gate", "up", "down") or len(widths) != 1 or shape[1] == shape[2]:
        return family.is_transposed(module)
    return ({*widths} == {shape[1]}) == (role != "down")


def _has_router(module: str, shape: Shape, near: Neighbours, *, inputs: Shape = ()) -> bool:
    """Whether a module has a router with one row per expert, and as many inputs as one of these."""
    return any(
        rows == shape[0] != shape[-1] and (not inputs or columns in inputs)
        for rows, columns in near.routers_within(module)
    )


def _merged(axes: list[Axis]) -> tuple[Axis, ...]:
    """The same elements in fewer axes, if one axis continues another."""
    found: list[Axis] = []
    for size, stride in axes:
        if found and found[-1][1] == size * stride:
            found[-1] = found[-1][0] * size, stride
        else:
            found.append((size, stride))
    return tuple(found)
