"""The tensors beside a tensor, which explain its shape; and the words of its name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cached_property

from rankscope.checkpoints.tensors import Tensor

WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
# Names of the only tensor of a module, which then has the name of the module.
PLAIN_LEAVES = ("weight", "weights", "kernel")


class Neighbours:
    """The tensors of a checkpoint by the module that each is in.

    Parameters
    ----------
    tensors
        By plain name.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self._modules: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            module, _, leaf = name.rpartition(".")
            self._modules.setdefault(module, {})[leaf] = tensor

    def beside(self, name: str) -> dict[str, Tensor]:
        """The other tensors of its module, by the last part of their names."""
        module, _, leaf = name.rpartition(".")
        return {other: held for other, held in self._modules[module].items() if other != leaf}

    def within(self, module: str) -> Iterator[tuple[str, Tensor]]:
        """Name and tensor of everything in a module and below it."""
        return ((name, self._tensors[name]) for name in self._below.get(module, ()))

    @cached_property
    def _below(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name in self._tensors:
            parts = name.split(".")
            for end in range(len(parts)):
                found.setdefault(".".join(parts[:end]), []).append(name)
        return found

    def has_bias(self, name: str, size: int) -> bool:
        """Whether a bias with ``size`` entries is beside it, so that it has as many outputs."""
        leaf = name.rpartition(".")[2]
        beside = self.beside(name)
        own = (f"{leaf}_bias", leaf.replace("weight", "bias"), "bias")
        return any(beside[bias].shape == (size,) for bias in own if bias in beside)


def words(text: str) -> tuple[str, ...]:
    """Words of a part of a name, in lower case: ``relPos_h`` is rel, pos and h."""
    return tuple(word.lower() for word in WORD.findall(text))


def own_part(name: str) -> str:
    """The part of a name that says what a tensor is: its last one, or that of its module.

    A plain ``weight`` says nothing, and neither does the index in a list of parameters.
    """
    parts = name.split(".")
    if len(parts) > 1 and parts[-1].isdigit():
        parts.pop()
    if len(parts) > 1 and parts[-1] in PLAIN_LEAVES:
        parts.pop()
    return parts[-1]


def is_weight(name: str) -> bool:
    """Whether the last part of a name says that it is a weight."""
    return bool({"weight", "weights", "kernel"} & {*words(name.rpartition(".")[2])})
