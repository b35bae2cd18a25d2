"""Weights of a model that was saved with its adapters in it: under the names of the model alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import prod

from rankscope.checkpoints.adapters.flattened_names import FLAT
from rankscope.checkpoints.contents import Delta
from rankscope.checkpoints.tensors import Tensor

# Beside these a weight is not the base's plus its delta: code, words.
APART = {
    "dora_scale": ("dora", "its rows are rescaled as LyCORIS does: only the delta is read"),
    "trainable_tokens_delta": ("trainable-tokens", "some of its rows have been replaced"),
}
SAVED = re.compile(r"\.modules_to_save(?:\.[^.]+)?(?=\.)")
REPLACED, HELD = ".original_module.", ".base_layer."
DEEPEST = 3  # parts of a path between a module and the weight that its adapter wraps


def odd_ones(tensors: Mapping[str, Tensor], has_factors: bool) -> dict[str, tuple[str, str, str]]:
    """Tensors that say that a weight is not its base plus a delta, or that nothing explains.

    Returns
    -------
    By name: the module that it speaks of, empty for a tensor that is odd by itself; code; words.
    """
    found = {}
    for name, tensor in tensors.items():
        end = next((end for end in APART if f".{end}" in name), None)
        if end is not None:
            module = name.partition(f".{end}")[0].removesuffix(".token_adapter")
            found[name] = (module, *APART[end])
        elif is_matrix(tensor) and _is_adapters(name, has_factors):
            found[name] = ("", "not-an-adapter", "is not a factor of a kind that is known")
    return found


def _is_adapters(name: str, has_factors: bool) -> bool:
    """Whether a name is that of a part of an adapter, of whatever kind."""
    of_lora = has_factors and ".lora_" in name and not name.endswith("bias")
    return of_lora or FLAT.fullmatch(name.partition(".")[0]) is not None


def replaced(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Names of weights of which a copy was trained in their place."""
    return (name for name in list(tensors) if REPLACED in name)


def unwrapped(tensors: Mapping[str, Tensor], adapters: Mapping[str, Delta]) -> dict[str, Tensor]:
    """The tensors under the names that they have in the model alone.

    What PEFT holds the weight in is known by name. Otherwise the only matrix in a module with an
    adapter is its weight, if it is of the shape of the delta, whatever the wrapper calls it. Where
    that errs, the delta is added to another weight of the same shape in the same module.
    """
    rest = {SAVED.sub("", name).replace(HELD, "."): tensor for name, tensor in tensors.items()}
    for module, delta in adapters.items():
        if f"{module}.weight" in rest:
            continue
        below = [n for n in rest if n.startswith(f"{module}.") and is_matrix(rest[n])]
        if len(below) == 1 and below[0].count(".") <= module.count(".") + DEEPEST:
            shape = rest[below[0]].shape
            if (shape[0], prod(shape[1:])) in (delta.shape, delta.shape[::-1]):
                rest[f"{module}.weight"] = rest.pop(below[0])
    return rest


def is_matrix(tensor: Tensor) -> bool:
    """Whether a tensor has more than one row and column, in whichever axes they are."""
    return sum(size != 1 for size in tensor.shape) > 1
