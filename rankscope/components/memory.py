"""How much memory the spectrum of a recipe takes at the least, compared before anything is read."""

from __future__ import annotations

import math

from rankscope.checkpoints.limits import check_memory
from rankscope.checkpoints.tensors import DTYPES, Tensor
from rankscope.components.recipes import Recipe

WIDE = 8  # bytes of a float64


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
    """Bytes for all tensors as they are read, the largest in float64, and its Gram matrix twice."""
    read = sum(math.prod(one.shape) * _itemsize(one) for one in tensors)
    largest = max(tensors, key=lambda one: math.prod(one.shape))
    count, short = math.prod(largest.shape), min(largest.shape, default=0)
    return read + WIDE * (count + 2 * min(short, math.isqrt(count)) ** 2)


def _itemsize(tensor: Tensor) -> int:
    """Bytes of an element once it is read: bfloat16 becomes float32, a computed one float64."""
    if hasattr(tensor, "parts"):
        return WIDE
    return 4 if tensor.dtype == "bfloat16" else DTYPES.get(tensor.dtype, (WIDE, ""))[0]
