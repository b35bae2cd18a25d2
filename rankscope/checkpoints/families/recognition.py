"""Which family a model is of: by its config, else by the names and shapes of what it holds."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from rankscope.checkpoints.families.family import GENERIC, Family, ends_with, families

INDEX = re.compile(r"(?<=\.)\d+(?=\.)")  # of a layer or an expert


def family_of(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> Family:
    """The family of a model, by its config, else by the names and shapes of its tensors.

    Parameters
    ----------
    config
        Its ``config.json`` or what stands for it; empty where there is none.
    shapes
        Shape of the tensor of each module.

    Returns
    -------
    The family; of several that fit, the one that asks for most. The one called ``generic``, which
    knows the common names, where none fits.
    """
    shapes = {INDEX.sub("0", module): shape for module, shape in shapes.items()}  # one layer of all
    stated = config.get("model_type")
    agreeing = [f for f in families().values() if _agrees(f, config)]
    by_type = [f for f in agreeing if stated in f.model_types and _has_shapes(f, shapes)]
    for family in by_type or agreeing:
        if _has_keys(family, shapes) and _has_shapes(family, shapes):
            return family
    return by_type[0] if by_type else families()[GENERIC]


def _agrees(family: Family, config: Mapping[str, Any]) -> bool:
    return all(config.get(key, False) == value for key, value in family.when.items())


def _held(end: str, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
    return (shape for module, shape in shapes.items() if ends_with(module, end))


def _has_keys(family: Family, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether there are keys, and every one occurs, and none that must not."""
    return (
        bool(family.keys)
        and all(any(_held(end, shapes)) for end in family.keys)
        and not any(any(_held(end, shapes)) for end in family.unless)
    )


def _has_shapes(family: Family, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether what is to be wide or tall is, where it occurs; and what is to be twice another."""
    return (
        all(all(shape[-1] > shape[0] for shape in _held(end, shapes)) for end in family.wide)
        and all(all(shape[-1] < shape[0] for shape in _held(end, shapes)) for end in family.tall)
        and all(_is_twice(end, other, shapes) for end, other in family.twice.items())
    )


def _is_twice(end: str, other: str, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether both occur, and the outputs of the one are always twice the inputs of the other."""
    firsts, seconds = list(_held(end, shapes)), list(_held(other, shapes))
    inputs = {2 * shape[-1] for shape in seconds}
    return bool(firsts) and all(shape[-2] in inputs for shape in firsts)
