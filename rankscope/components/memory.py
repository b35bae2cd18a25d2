"""The least memory that the spectrum of a recipe takes, checked before anything is read."""

from __future__ import annotations

import math

from rankscope.checkpoints.limits import check_memory
from rankscope.checkpoints.tensors import DTYPES, Tensor
from rankscope.components.recipes import Recipe

WIDE = 8  # bytes of a float64
WORKSPACE = 210  # numbers per row that the eigensolver works with, beside the Gram matrix


def check_room(recipe: Recipe) -> None:
    """Refuse a recipe whose matrix cannot fit into memory, before its tensors are read.

    Raises
    ------
    RankscopeError
        With the reason ``too-large``.
    """
    tensors = recipe.tensors()
    if not tensors:
        return
    largest = max(tensors, key=lambda one: math.prod(one.shape))
    shown = " × ".join(map(str, largest.shape))
    check_memory(
        least_memory(tensors),
        f"the spectrum of a matrix of {shown}",
        path=largest.paths[0],
        tensor=largest.name,
    )


def least_memory(tensors: tuple[Tensor, ...]) -> int:
    """Bytes for the largest tensor in float64, and for all as they are read or its Gram matrix.

    When the Gram matrix is formed, which is then copied for the eigensolver, nothing is left of the
    tensors as they were read.
    """
    read = sum(math.prod(one.shape) * _itemsize(one) for one in tensors)
    largest = max(tensors, key=lambda one: math.prod(one.shape))
    count, short = math.prod(largest.shape), min(largest.shape, default=0)
    short = min(short, math.isqrt(count))
    return WIDE * count + max(read, WIDE * short * (2 * short + WORKSPACE))


def _itemsize(tensor: Tensor) -> int:
    """Bytes of an element once it is read: bfloat16 becomes float32, a computed one float64."""
    if hasattr(tensor, "parts"):
        return WIDE
    return 4 if tensor.dtype == "bfloat16" else DTYPES.get(tensor.dtype, (WIDE, ""))[0]
