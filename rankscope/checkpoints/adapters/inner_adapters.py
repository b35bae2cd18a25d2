"""Adapters inside the layers of a model: both factors are beside the frozen weight of a module."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rankscope.checkpoints.account import Classed
from rankscope.checkpoints.adapters.peft_config import finite
from rankscope.checkpoints.contents import Adapter, Skip
from rankscope.checkpoints.families.names import plain_name
from rankscope.checkpoints.tensors import Tensor
from rankscope.errors import RankscopeError, printable


@dataclass(frozen=True)
class Ends:
    """Ends of the names of an adapter's tensors, after the path of the module.

    The tensor ``scale`` exists if the scale is trained; the model uses its tanh.
    """

    lora_A: str
    lora_B: str
    scale: str


@dataclass(frozen=True)
class Separated:
    """The tensors of a model by plain name, and its adapters by module."""

    tensors: Mapping[str, Tensor]
    adapters: Mapping[str, Adapter]
    skips: tuple[Skip, ...]
    aside: tuple[Classed, ...]


def separated(
    tensors: Mapping[str, Tensor], ends: Ends, *, alpha: object, config: Path
) -> Separated:
    """Separate the adapters from the other tensors; reads trained scales, one number each.

    Parameters
    ----------
    tensors
        By name as stored.
    alpha
        ``lora_alpha`` in the file ``config``: the scale is alpha over the rank unless it is
        trained.

    Raises
    ------
    RankscopeError
        If a scale is needed and ``alpha`` is not a number, or a trained scale cannot be read.
    """
    rest = {plain_name(name): tensor for name, tensor in tensors.items()}
    ending = (ends.lora_A, ends.lora_B)
    modules = {n.removesuffix(end): None for n in rest for end in ending if n.endswith(end)}
    adapters, skips, aside = {}, [], []
    for module in modules:
        a, b = (rest.pop(module + end, None) for end in ending)
        trained = rest.pop(module + ends.scale, None)
        if trained is not None:
            aside.append(Classed(trained, "part of", f"the adapter of {module}"))
        fault = _fault(a, b, trained, ends)
        if fault or a is None or b is None:
            path = next(part.paths[0] for part in (a, b) if part is not None)
            skips.append(Skip(path, module, "adapter-incomplete", fault))
            factors = [part for part in (a, b) if part is not None]
            aside += [Classed(factor, "not understood", fault) for factor in factors]
        else:
            scale = _stated(alpha, a.shape[0], config) if trained is None else _tanh(trained)
            adapters[module] = Adapter(a, b, scale)
    return Separated(rest, adapters, tuple(skips), tuple(aside))


def _fault(a: Tensor | None, b: Tensor | None, trained: Tensor | None, ends: Ends) -> str:
    """What is wrong with the parts of an adapter; empty if nothing is."""
    if a is None or b is None:
        there, missing = (ends.lora_B, ends.lora_A) if a is None else (ends.lora_A, ends.lora_B)
        return f"has {there[1:]} but no {missing[1:]}"
    shapes = a.shape, b.shape
    if [len(shape) for shape in shapes] != [2, 2] or a.shape[0] != b.shape[1] or 0 in a.shape:
        return f"its factors do not fit: A is {list(a.shape)}, B is {list(b.shape)}"
    if trained is not None and math.prod(trained.shape) != 1:
        return f"its scale is {list(trained.shape)}, not one number"
    return ""


def _tanh(trained: Tensor) -> float:
    return math.tanh(float(trained.read().reshape(-1)[0]))


def _stated(alpha: object, rank: int, config: Path) -> float:
    number = finite(alpha)
    if number is None:
        shown = printable(repr(alpha), limit=40)
        raise RankscopeError(f"lora_alpha is {shown}, not a number", path=config)
    return number / rank
