"""The tensors beside a tensor, which explain its shape; and the words of its name."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, lru_cache

from rankscope.checkpoints.families.repeats import first_alike
from rankscope.checkpoints.tensors import FLOATS, Tensor

Shape = tuple[int, ...]
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
# Names of the only tensor of a module, which then has the name of the module.
PLAIN_LEAVES = ("weight", "weights", "kernel")


class Neighbours:
    """The tensors of a checkpoint by the module that each is in.

    Parameters
    ----------
    tensors
        By plain name.
    told_apart
        Whether the family of the model may look at this number of a block (`Family.tells_apart`).

    Attributes
    ----------
    judged
        Why tensors are not linear maps, as far as `why_no_map` was asked.
    """

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        told_apart: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._tensors = tensors
        self._told_apart = told_apart
        self.judged: dict[str, str] = {}
        self._modules: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            module, _, leaf = name.rpartition(".")
            self._modules.setdefault(module, {})[leaf] = tensor
        # By module, made when they are asked for.
        self._without_axis: dict[str, frozenset[Shape]] = {}
        self._within: dict[str, Counter[Shape]] = {}
        self._sides: dict[str, frozenset[int]] = {}
        self._turned: dict[str, frozenset[bool]] = {}
        self._routers: dict[str, frozenset[Shape]] = {}
        self._lengths: dict[str, frozenset[int]] = {}

    def beside(self, name: str) -> Mapping[str, Tensor]:
        """The tensors of its module, by the last part of their names; itself among them."""
        return self._modules[name.rpartition(".")[0]]

    def shape_of(self, name: str) -> Shape:
        """The shape of a tensor by its name; empty if there is none."""
        return self._tensors[name].shape if name in self._tensors else ()

    def shapes_but_one_axis(self, name: str) -> frozenset[Shape]:
        """The shapes of the tensors of its module, each without one axis that is not the first."""
        module = name.rpartition(".")[0]
        if module not in self._without_axis:
            shapes = {held.shape for held in self._modules[module].values()}
            self._without_axis[module] = frozenset(
                (*shape[:axis], *shape[axis + 1 :])
                for shape in shapes
                for axis in range(1, len(shape))
            )
        return self._without_axis[module]

    def within(self, module: str) -> Iterator[tuple[str, Tensor]]:
        """Name and tensor of everything in a module and below it."""
        if not module:
            return iter(self._tensors.items())
        names = sorted(self._sorted[self._span(module)], key=self._places.__getitem__)
        return ((name, self._tensors[name]) for name in names)

    def count_within(self, module: str) -> int:
        """How many tensors are in a module and below it."""
        return len(range(len(self._tensors))[self._span(module)] if module else self._tensors)

    def _span(self, module: str) -> slice:
        first, end = (bisect_left(self._sorted, f"{module}{sign}") for sign in "./")
        return slice(first, end)

    def beginning_with(self, start: str) -> Iterator[tuple[str, Tensor]]:
        """Last part of the name, and tensor, of all in its module whose names begin so."""
        module, behind = start.rpartition(".")[0], f"{start[:-1]}{chr(ord(start[-1]) + 1)}"
        first, end = (bisect_left(self._sorted, one) for one in (start, behind))
        for name in self._sorted[first:end]:
            if name.rpartition(".")[0] == module:
                yield name.rpartition(".")[2], self._tensors[name]

    def float_lengths(self, module: str) -> frozenset[int]:
        """The lengths of all axes of the floating-point numbers in a module."""
        if module not in self._lengths:
            held = self._modules[module].values()
            self._lengths[module] = frozenset(
                size for one in held if one.dtype in FLOATS for size in one.shape
            )
        return self._lengths[module]

    def shapes_within(self, module: str) -> Counter[Shape]:
        """How many tensors of each shape are in a module and below it."""
        if module not in self._within:
            self._within[module] = Counter(tensor.shape for _, tensor in self.within(module))
        return self._within[module]

    def sides_within(self, module: str) -> frozenset[int]:
        """The sides of all matrices in a module and below it."""
        if module not in self._sides:
            shapes = [shape for shape in self.shapes_within(module) if len(shape) == 2]
            self._sides[module] = frozenset(size for shape in shapes for size in shape)
        return self._sides[module]

    def routers_within(self, module: str) -> frozenset[Shape]:
        """The shapes of the matrices in a module and below it that are called a router or gate."""
        if module not in self._routers:
            self._routers[module] = frozenset(
                tensor.shape
                for name, tensor in self.within(module)
                if len(tensor.shape) == 2 and is_weight(name)
                if {"router", "gate"} & {*words(name.removeprefix(module))}
            )
        return self._routers[module]

    def turned_within(self, module: str) -> frozenset[bool]:
        """Whether biases in a module and below it are as long as the columns of their weights.

        Both if they differ; those of square matrices say nothing.
        """
        if module not in self._turned:
            pairs = (
                (tensor.shape, self.shape_of(f"{name.removesuffix('weight')}bias"))
                for name, tensor in self.within(module)
                if name.endswith(".weight") and len({*tensor.shape}) == len(tensor.shape) == 2
            )
            self._turned[module] = frozenset(
                bias == shape[1:] for shape, bias in pairs if len(bias) == 1 and bias[0] in shape
            )
        return self._turned[module]

    @cached_property
    def first_alike(self) -> Mapping[str, str]:
        """For each tensor, the one in a repeated block of which all rules say the same.

        Those of convolutions count the blocks before, so a tensor of more axes stands for itself.
        """
        known = {n: (t.dtype, t.shape, t.__class__) for n, t in self._tensors.items()}
        found = first_alike(known, self._told_apart)
        return found | {n: n for n, tensor in self._tensors.items() if len(tensor.shape) > 2}

    @cached_property
    def kernels_in_model(self) -> int:
        """How many tensors have more than two axes."""
        return sum(len(tensor.shape) > 2 for tensor in self._tensors.values())

    @cached_property
    def has_colours(self) -> bool:
        """Whether the model has a kernel for images of three colours."""
        shapes = (tensor.shape for tensor in self._tensors.values())
        return any(len(shape) == 4 and shape[1] == 3 and max(shape[2:]) > 1 for shape in shapes)

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self._tensors)

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self._tensors)}

    def has_bias(self, name: str, size: int) -> bool:
        """Whether a bias with ``size`` entries is beside it, so that it has as many outputs."""
        return (size,) in self.biases_of(name)

    def biases_of(self, name: str) -> list[Shape]:
        """The shapes of what may be the bias of a tensor: its own, and what is called ``bias``."""
        beside = self.beside(name)
        others = [beside["bias"].shape] if "bias" in beside and not name.endswith("bias") else []
        return [*self.own_biases_of(name), *others]

    def own_biases_of(self, name: str) -> list[Shape]:
        """Shapes of biases named after a tensor: ``b1`` of ``W1``, ``bias_ih`` of ``weight_ih``.

        The plain ``bias`` of a module is not, unless the tensor is its ``weight``.
        """
        beside, leaf = self.beside(name), name.rpartition(".")[2]
        swaps = (("weight", "bias"), ("w", "b"), ("W", "b"), ("W", "B"))
        own = {f"{leaf}_bias": 0, **{leaf.replace(word, bias, 1): 0 for word, bias in swaps}}
        return [beside[bias].shape for bias in own if bias in beside and bias != leaf]


@lru_cache(maxsize=4096)  # the names of layers and experts share nearly all of their parts
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
    leaf = name.rpartition(".")[2]
    return leaf == "weight" or bool({"weight", "weights", "kernel"} & {*words(leaf)})
