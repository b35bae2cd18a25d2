"""Which module reads what a weight multiplies: found by name, and tried on two tokens.

A weight's input is known for certain only where a module of its name gives, of what it was given,
what the weight gives of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rankscope.checkpoints.contents import Contents, Parameter
from rankscope.components.component import Component, Moment, weight_of
from rankscope.components.selection import AT_CHECKPOINTS
from rankscope.errors import RankscopeError
from rankscope.representing.collected import Energy, Place
from rankscope.representing.places import Tap, module_named, output_layer
from rankscope.scoring.text_model import Network
from rankscope.spectra.bounds import Values
from rankscope.spectra.matrices import LowRank

# Of the largest output: more than rounding, less than what another weight would make of it.
APART = {"float32": 1e-3, "bfloat16": 3e-2}


@dataclass(frozen=True)
class Reader:
    """A module, and the matrices of a checkpoint that multiply its input.

    Attributes
    ----------
    tap
        Its input; None where no module is known to be the weight's.
    shape
        Rows and columns of each of them.
    matrices
        The weight, and what is added to it, such as its adapter.
    """

    tap: Tap | None
    shape: tuple[int, ...]
    matrices: tuple[Component, ...]


@dataclass(frozen=True)
class _Observed:
    """What a module was given for two tokens, and what it gave: (2, d) and (2, m)."""

    given: Values
    gave: Values


def readers_of(
    network: Network, moment: Moment, wanted: Sequence[Energy], *, device: str, precision: str
) -> list[Reader]:
    """The wanted matrices of a checkpoint by the weight that they belong to, each with its module.

    Weights of experts are left out, since each reads other tokens; so is the embedding, unless it
    is the output layer too.
    """
    parameters = _readable(moment.now)
    modules = {name: _module(network.module, one) for name, one in parameters.items()}
    seen = _observed(network, [one for one in modules.values() if one is not None], device)
    matrices: dict[str, list[Component]] = {}
    for kind in wanted:
        for component in AT_CHECKPOINTS[kind](moment):
            if component.kind == kind and component.name in parameters:
                matrices.setdefault(component.name, []).append(component)
    readers = []
    for number, (name, parameter) in enumerate(parameters.items()):
        module = modules[name]
        if name not in matrices:
            continue
        role = "unembed" if parameter.role == "embed" else parameter.role
        found = tuple(one._replace(role=role) for one in matrices[name])
        is_its = module in seen and _gives(parameter, seen[module], APART[precision])
        tap = Tap(Place(number, role), module, is_input=True) if is_its and module else None
        readers.append(Reader(tap, parameter.shape, found))
    return readers


def _readable(contents: Contents) -> dict[str, Parameter]:
    """Matrices that may read the features of every token."""
    there = {
        name: one
        for name, one in contents.parameters.items()
        if one.expert is None and not one.is_factor and len(one.shape) == 2
    }
    has_output = any(one.role == "unembed" for one in there.values())
    return {name: one for name, one in there.items() if one.role != "embed" or not has_output}


def _module(network: Any, parameter: Parameter) -> nn.Module | None:
    if parameter.role == "embed":
        return output_layer(network)
    try:
        return module_named(dict(network.named_modules()), parameter.module)
    except RankscopeError:
        return None


def _observed(
    network: Network, modules: Iterable[nn.Module], device: str
) -> dict[nn.Module, _Observed]:
    """What modules read and give where the network runs on two tokens."""
    seen: dict[nn.Module, _Observed] = {}

    def see(module: nn.Module, given: Any, named: Any, gave: Any) -> None:
        x, y = (given or tuple(named.values()))[0], gave
        if _is_of_each(x) and _is_of_each(y):
            seen[module] = _Observed(*(one[0].double().cpu().numpy() for one in (x, y)))

    with ExitStack() as hooks, torch.inference_mode():
        for module in dict.fromkeys(modules):
            hooks.callback(module.register_forward_hook(see, with_kwargs=True).remove)
        network.run(torch.tensor([[0, 1]], device=device))
    return seen


def _is_of_each(value: object) -> bool:
    """Whether this is a vector for each of the two tokens."""
    return (
        isinstance(value, Tensor)
        and value.ndim == 3
        and value.shape[:2] == (1, 2)
        and value.is_floating_point()
    )


def _gives(parameter: Parameter, seen: _Observed, apart: float) -> bool:
    """Whether a module gives what the weight makes of what it was given, biases aside.

    Of a weight that is part of a fused one, its outputs are among those of the module.
    """
    weight = weight_of(parameter)
    if weight is None or seen.given.shape[1] != parameter.shape[1]:
        return False
    matrix = weight.read()
    values = matrix.multiplied() if isinstance(matrix, LowRank) else matrix.values
    with np.errstate(over="ignore", invalid="ignore"):
        expected = np.asarray(values, np.float64) @ (seen.given[1] - seen.given[0])
    found = seen.gave[1] - seen.gave[0]
    if not (np.isfinite(expected).all() and np.isfinite(found).all()):
        return True  # there are no numbers of it whatever it is
    near = apart * float(np.abs(seen.gave).max(initial=0.0))
    if np.abs(expected).max(initial=0.0) <= near:
        return False
    if len(expected) == len(found):
        return bool((np.abs(found - expected) <= near).all())
    ordered = np.sort(found)
    places = np.searchsorted(ordered, expected).clip(1, len(ordered) - 1)
    nearest = np.minimum(np.abs(ordered[places] - expected), np.abs(ordered[places - 1] - expected))
    return len(expected) < len(found) and bool((nearest <= near).all())
