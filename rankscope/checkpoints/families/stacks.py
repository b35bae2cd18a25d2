"""Layers that are stored one after the other in one tensor, as in Megatron-core's format.

``decoder.layers.mlp.linear_fc1.weight`` of (3, 64, 32) holds one matrix for each of three layers,
and a vector of a layer has two axes. So all tensors of such a stack are taken apart before anything
asks for their shapes, and get names with the number of their layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rankscope.checkpoints.account import Rest
from rankscope.checkpoints.families.convolutions import is_convolution
from rankscope.checkpoints.families.names import alike_in_digits
from rankscope.checkpoints.families.neighbours import words
from rankscope.checkpoints.tensors import FLOATS, Tensor

LAYERS = {"layers", "layer", "blocks", "block", "h", "resblocks"}
LEAVES = ("weight", "bias", "kernel", "scale")
COUNTS = ("num_layers", "num_hidden_layers", "n_layer", "n_layers", "encoder_num_layers")


@dataclass(frozen=True)
class Layer:
    """One layer of a stacked tensor: everything at one index of its first axis."""

    whole: Tensor
    index: int

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """The stacked tensor."""
        return (self.whole,)

    @property
    def name(self) -> str:
        """Name of the stacked tensor."""
        return self.whole.name

    @property
    def dtype(self) -> str:
        """Format of the stacked tensor."""
        return self.whole.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """All axes but the first."""
        return self.whole.shape[1:]

    @property
    def paths(self) -> tuple[str, ...]:
        """Files of the stacked tensor."""
        return self.whole.paths

    def read(self) -> NDArray[Any]:
        """Read only the elements of the layer."""
        return self.elements(0, math.prod(self.shape)).reshape(self.shape)

    def of(self, values: NDArray[Any]) -> NDArray[Any]:
        """The same layer of an array of the shape of the stacked tensor."""
        return np.asarray(values[self.index])

    def elements(self, start: int, stop: int) -> NDArray[Any]:
        """Read elements ``start:stop`` in row-major order."""
        first = self.index * math.prod(self.shape)
        return self.whole.elements(first + start, first + stop)


def unstacked(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Rest:
    """The tensors with each layer of a stack as a tensor.

    Parameters
    ----------
    tensors
        By plain name.
    config
        The config of the model; a number of layers there must be that of the stack.
    """
    stacks = {
        path: count for path in _layer_lists(tensors) if (count := _count(path, tensors, config))
    }
    separate: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        path = next((path for path in stacks if name.startswith(f"{path}.")), None)
        if path is None or tensor.shape[:1] != (stacks[path],):
            separate[name] = tensor
            continue
        inner = name.removeprefix(path)
        for index in range(stacks[path]):
            separate[f"{path}.{index}{inner}"] = Layer(tensor, index)
    return Rest(separate)


def _layer_lists(tensors: Mapping[str, Tensor]) -> dict[str, None]:
    """Paths of modules that are called layers and have no number after them."""
    return {
        ".".join(name.split(".")[:end]): None
        for common, names in alike_in_digits(tensors).items()
        if (end := _end_of_list(common))
        for name in names
    }


def _end_of_list(name: str) -> int:
    """How many parts of a name are the path of such a module; 0 if it is in none."""
    parts = name.split(".")
    for end, part in enumerate(parts[:-1], 1):
        if LAYERS & {*words(part)[-1:]} and not any(map(str.isdigit, part)):
            is_its_own = end + 1 == len(parts) and parts[-1] in LEAVES
            return 0 if parts[end].isdigit() or is_its_own else end
    return 0


def _count(path: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> int:
    """Number of layers that are stacked in a module; 0 if its tensors are not stacks.

    They are if all its tensors with several axes have the same first axis, and one has three axes.
    They are not if there is a weight or bias with one axis, as a norm has in a single layer, or
    only convolutions. An error: slices of one matrix are measured as matrices of several layers.
    """
    within = {
        name: tensor
        for name, tensor in tensors.items()
        if name.startswith(f"{path}.") and tensor.dtype in FLOATS
    }
    if any(name.removeprefix(path)[1:].partition(".")[0].isdigit() for name in within):
        return 0
    if any(len(tensor.shape) == 1 and _is_named(name) for name, tensor in within.items()):
        return 0
    several = {name: tensor.shape for name, tensor in within.items() if len(tensor.shape) > 1}
    counts = {shape[0] for shape in several.values()}
    if len(counts) != 1 or all(map(is_convolution, several)):
        return 0
    (count,) = counts
    stated = [config[key] for key in COUNTS if type(config.get(key)) is int]
    if stated:
        return count if count in stated and max(map(len, several.values())) > 2 else 0
    deep = [s for name, s in several.items() if len(s) > 2 and not is_convolution(name)]
    return count if any(count < min(shape[-2:]) for shape in deep) else 0


def _is_named(name: str) -> bool:
    return name.rpartition(".")[2] in ("weight", "bias")
