"""Which axes of a tensor are outputs and which inputs, and the matrices that it then holds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from rankscope.checkpoints.families.family import INDICES, Family
from rankscope.checkpoints.families.neighbours import Neighbours, is_weight, own_part, words
from rankscope.checkpoints.regions import Part, Region
from rankscope.checkpoints.tensors import Axis, Tensor

Axes = tuple[str, ...]

KERNEL, TINY = 32, 11  # the largest sides of a kernel that its shape alone tells
# Words that begin as convolutions do and are not.
NO_CONVOLUTIONS = ("conve", "convi")
LETTERS = {"qkvo": ("q", "k", "v", "o"), "qkv": ("q", "k", "v"), "kv": ("k", "v")}


@dataclass(frozen=True)
class Cut:
    """One matrix of a tensor, as (outputs, inputs).

    Attributes
    ----------
    indices
        Its index along each axis that numbers matrices: of ``layer``, ``expert`` and ``part``.
    """

    matrix: Tensor
    indices: Mapping[str, int] = field(default_factory=dict)


def axes_of(name: str, shape: tuple[int, ...], family: Family, near: Neighbours) -> Axes | None:
    """What each axis of a tensor is: ``out``, ``in``, or what numbers its matrices.

    Two axes are outputs and inputs, unless the family has them the other way round. More are
    whatever the family's table says; else a stack of experts in a module of experts, a convolution
    where name, neighbours or shape say so, and q, k and v one behind the other in a tensor that is
    called so and has as many. If a rule errs, the rows and columns of a matrix are mixed up: the
    number is of another matrix. So they ask for more than one sign wherever there is one.

    Returns
    -------
    One word an axis; None if nothing tells, and the tensor must not be measured.
    """
    module = name.removesuffix(".weight")
    stated = family.axes_of(module, len(shape))
    if stated is not None:
        return stated
    turned = family.is_transposed(module)
    if len(shape) == 2:
        return ("in", "out") if turned else ("out", "in")
    if len(shape) == 3 and _is_stack_of_experts(name, shape, near):
        return ("expert", "in", "out") if turned else ("expert", "out", "in")
    if len(shape) == 3 and parts_in_name(name, shape) is not None:
        return ("part", "out", "in")
    return _contracted(name, shape, near)


def parts_in_name(name: str, shape: tuple[int, ...]) -> tuple[str, ...] | None:
    """Roles of matrices that lie one behind the other in a tensor called ``qkv`` or the like.

    The first axis must have as many entries as there are letters, and the matrices be square: in
    ``qkv`` of (3, width, width) nothing else can be meant.
    """
    if len(shape) != 3 or shape[1] != shape[2]:
        return None
    said = {word.removeprefix("w") for word in words(own_part(name))}
    found = (parts for letters, parts in LETTERS.items() if letters in said)
    return next((parts for parts in found if len(parts) == shape[0]), None)


def cuts(tensor: Tensor, axes: Axes) -> Iterator[Cut]:
    """The matrices of a tensor whose axes are these, in the order of their indices."""
    if axes == ("out", "in"):
        yield Cut(tensor)
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
        yield Cut(Part(tensor, region), {kind: index for index, (kind, _, _) in pairs})


def is_convolution(name: str) -> bool:
    """Whether a tensor or its module is called a convolution: ``conv1``, ``dwconv``, ``convs``.

    So is what lies in one under a number, or under a name of its own.
    """
    *modules, leaf = name.split(".")
    near = [leaf, *[part for part in modules if not part.isdigit()][-2:]]
    said = (word for part in near for word in words(part))
    return any(
        word.rstrip("s").endswith("conv")
        or (word.startswith("conv") and not word.startswith(NO_CONVOLUTIONS))
        for word in said
    )


def is_depthwise(name: str, shape: tuple[int, ...], near: Neighbours) -> bool:
    """Whether a convolution has a kernel for each channel, so that no matrix mixes them.

    It has one input a kernel, as the first layer on grey images has too. It counts as depthwise if
    it is called so, or if its block, which a number in its name tells, has a matrix without a
    kernel that has as many rows or columns as it has channels; or more rows, in the same module:
    then some of them go into it, as in Mamba-2, unless the columns are a multiple of the channels,
    which are its own outputs. If this errs, the matrix of a first layer is missing.
    """
    if len(shape) < 3 or shape[1] != 1:
        return False
    if len(shape) == 3 and not (is_convolution(name) or near.has_bias(name, shape[0])):
        return False
    if {"depthwise", "dw", "dwconv"} & {word for part in name.split(".") for word in words(part)}:
        return True
    channels, parts = shape[0], name.split(".")[:-2]
    module = f"{'.'.join(parts)}."
    blocks = [i for i, part in enumerate(parts) if part.isdigit()]
    return any(
        channels in tensor.shape[:2]
        or (other.startswith(module) and tensor.shape[0] > channels and tensor.shape[1] % channels)
        for end in blocks
        for other, tensor in near.within(".".join(parts[: end + 1]))
        if sum(size > 1 for size in tensor.shape[:2]) == 2 and math.prod(tensor.shape[2:]) == 1
    )


def _contracted(name: str, shape: tuple[int, ...], near: Neighbours) -> Axes | None:
    """Axes of a tensor of which one end is contracted with the inputs: a convolution, or heads.

    The bias tells: it has the axes of the outputs, which come first in torch and last in JAX. Then
    the name does. Four axes and more of which the last are a kernel's are a convolution's, and so
    are axes of size 1 behind a matrix.
    """
    first, last = (("out", *["in"] * (len(shape) - 1)), (*["in"] * (len(shape) - 1), "out"))
    bias = near.beside(name).get("bias")
    is_jax = name.endswith(".kernel")
    if bias is not None and not is_jax and bias.shape == shape[:1]:
        return first if bias.shape != shape[-1:] or shape[-1] <= KERNEL else None
    if bias is not None and not is_jax and bias.shape == shape[1:2] and shape[-1] <= KERNEL:
        return first  # turned round, for a larger output: the spectrum is the same
    if bias is not None and 0 < len(bias.shape) < len(shape):
        count = len(bias.shape)
        if bias.shape == shape[-count:]:
            return (*["in"] * (len(shape) - count), *["out"] * count)
    if is_convolution(name):
        return last if is_jax else first
    kernel = shape[:-2] if is_jax else shape[2:]
    if _is_kernel(kernel) or (math.prod(kernel) == 1 and is_weight(name)):
        return last if is_jax else first
    return None


def _is_kernel(sides: tuple[int, ...]) -> bool:
    """Whether axes behind outputs and inputs are those of a kernel: small, and alike if not tiny.

    One that is not tiny has its like, or only sides of 1 beside it. A stack of stacks of such small
    matrices is taken for a convolution.
    """
    large = [side for side in sides if side > TINY]
    if len(sides) < 2 or max(sides) > KERNEL or len({*large}) > 1:
        return False
    return len(large) != 1 or math.prod(sides) == large[0]


def _is_stack_of_experts(name: str, shape: tuple[int, ...], near: Neighbours) -> bool:
    """Whether the first axis of a tensor numbers experts: by its module, or by the router there.

    A router has a row for each expert, and lies in the same module; or in the one around it, if the
    experts have a side for its inputs too. A number in the name, as of a single expert, and a
    convolution's name say that it does not. If this errs, the kernel of each output is taken for a
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


def _has_router(
    module: str, shape: tuple[int, ...], near: Neighbours, *, inputs: tuple[int, ...] = ()
) -> bool:
    """Whether in a module a router has a row for each expert; and one of these inputs, if any."""
    return any(
        len(tensor.shape) == 2 and tensor.shape[0] == shape[0] != shape[-1]
        for other, tensor in near.within(module)
        if is_weight(other) and {"router", "gate"} & {*words(other.removeprefix(module))}
        if not inputs or tensor.shape[1] in inputs
    )


def _merged(axes: list[Axis]) -> tuple[Axis, ...]:
    """The same elements in fewer axes, where one continues the other."""
    found: list[Axis] = []
    for size, stride in axes:
        if found and found[-1][1] == size * stride:
            found[-1] = found[-1][0] * size, stride
        else:
            found.append((size, stride))
    return tuple(found)
