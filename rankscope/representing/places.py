"""Where in a network features are read: what passes through its blocks, and what they add."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from rankscope.checkpoints.contents import Parameter
from rankscope.errors import RankscopeError
from rankscope.representing.collected import EMBEDDING, FINAL, NO_PLACE, At, Place

# The output projection whose output a block adds to what passes through.
PROJECTIONS: Mapping[str, str] = {"attention": "o", "mlp": "down"}


@dataclass(frozen=True)
class Tap:
    """A place, and the module whose input or output is there."""

    place: Place
    module: nn.Module
    is_input: bool = False


def taps_of(network: Any, at: At, parameters: Iterable[Parameter]) -> list[Tap]:
    """Every place of a kind, in the order in which the network passes them.

    Parameters
    ----------
    network
        A model of this package's trainer or of transformers.
    at
        ``block``: what enters the first block, the output of each block, and what the output layer
        reads, after the last norm. ``attention``, ``mlp``: what each block's output projection
        gives.
    parameters
        Those of the checkpoint, which say what is which projection.

    Raises
    ------
    RankscopeError
        With the reason ``no-place``, if the network has no such places or it is not certain where
        they are.
    """
    if at != "block":
        return _projections(network, at, parameters)
    blocks = _blocks(network)
    taps = [Tap(Place(layer, "block"), block) for layer, block in enumerate(blocks)]
    output = output_layer(network)
    final = [] if output is None else [Tap(Place(len(blocks), FINAL), output, is_input=True)]
    return [Tap(Place(-1, EMBEDDING), blocks[0], is_input=True), *taps, *final]


def _blocks(network: Any) -> nn.ModuleList:
    """The outermost list of as many modules as the configuration has layers."""
    config = network.config
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    count = getattr(text, "num_hidden_layers", None)
    lists = [
        (name.count("."), module)
        for name, module in network.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    if not lists:
        raise RankscopeError(
            f"no list of {count} blocks was found in the network, so where its layers end is not "
            "certain",
            reason=NO_PLACE,
        )
    return min(lists, key=lambda one: one[0])[1]


def output_layer(network: Any) -> nn.Module | None:
    """What turns the last features into logits."""
    find = getattr(network, "get_output_embeddings", None)
    found = getattr(network, "lm_head", None) if find is None else find()
    return found if isinstance(found, nn.Module) else None


def _projections(network: Any, at: At, parameters: Iterable[Parameter]) -> list[Tap]:
    role = PROJECTIONS[at]
    names: dict[int, list[str]] = {}
    for parameter in parameters:
        if parameter.role == role and parameter.layer is not None:
            names.setdefault(parameter.layer, []).append(parameter.module)
    crowded = [layer for layer, some in names.items() if len(some) > 1]
    if not names or crowded:
        where = f"block {crowded[0]} has several" if crowded else "no block has any that is known"
        raise RankscopeError(
            f"{at} is one matrix with the role {role} in each block, and {where}: leave it out of "
            "`at`",
            reason=NO_PLACE,
        )
    modules = dict(network.named_modules())
    return [
        Tap(Place(layer, at), module_named(modules, some[0]))
        for layer, some in sorted(names.items())
    ]


def module_named(modules: Mapping[str, nn.Module], name: str) -> nn.Module:
    """The module with a name in the checkpoint, which wrappers and classes may prefix.

    Raises
    ------
    RankscopeError
        With the reason ``no-place``, if it is not exactly one.
    """
    # transformers leaves out the name of the class in some checkpoints and not in others.
    ending = re.search(r"[^.]+\.\d+\..+", name)
    wanted = name if ending is None else ending[0]
    found = [
        module for path, module in modules.items() if path == wanted or path.endswith(f".{wanted}")
    ]
    if len(found) != 1:
        raise RankscopeError(
            f"{len(found)} modules of the network have the name of this one in the checkpoint",
            tensor=name,
            reason=NO_PLACE,
        )
    return found[0]
