"""Which block of a model a module is in: told by the names of all modules, not by a list of words.

A number in a path counts blocks where the same names recur below several numbers. The outermost
such number is the layer. Where what it counts is itself a stack of blocks (a stage of Swin, a chunk
of DINOv2, a level of a U-Net), its blocks are counted through, from 0, in the order of the numbers.

What it costs when it errs: a matrix lands in the wrong row of a figure over layers, and the OV
circuit of a block is not found. Its spectrum, its role and its updates, which go by name, are not
touched.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

# A part of a path that is a number, or that ends in one and has parts below it.
NUMBER = re.compile(r"(?:(?<=\.)|^)(?P<plain>\d+)(?=\.|$)|(?<=[^\d.])(?P<ending>\d+)(?=\.)")
EXPERT = re.compile(r"expert", re.IGNORECASE)
LIKE_BLOCKS = re.compile(r"layer|block|^h$", re.IGNORECASE)
FEW = 2


@dataclass(frozen=True)
class Number:
    """A number in a path: what stands before it, and where its part of the path ends."""

    before: str
    value: int
    end: int
    is_plain: bool

    @cached_property
    def kind(self) -> str:
        """What stands before it, without the numbers in that."""
        return _without_numbers(self.before)

    @property
    def word(self) -> str:
        """The last word before it."""
        return self.before.rstrip(".").rpartition(".")[2]


@dataclass
class Count:
    """All places where one kind of number stands: what is below each value, without numbers."""

    is_plain: bool = True
    lists: dict[str, dict[int, list[str]]] = field(default_factory=lambda: defaultdict(dict))

    @cached_property
    def below(self) -> list[list[str]]:
        """What is below each of its values, in whichever place."""
        return [names for values in self.lists.values() for names in values.values()]

    @cached_property
    def most(self) -> int:
        """Values in the place that has most."""
        return max(map(len, self.lists.values()))

    @cached_property
    def holds_modules(self) -> bool:
        """Whether named modules lie below it, and not only the members of a sequence."""
        return any(name.strip(".#") for names in self.below for name in names)

    @cached_property
    def recurs(self) -> bool:
        """Whether somewhere half of several values or more share a name with another value."""
        return any(
            len(values) >= FEW and 2 * _sharing(list(values.values())) >= len(values)
            for values in self.lists.values()
        )

    @cached_property
    def all_alike(self) -> bool:
        """Whether it recurs, and every value shares a name with another in its place."""
        several = [list(v.values()) for v in self.lists.values() if len(v) >= FEW]
        return self.recurs and all(_sharing(values) == len(values) for values in several)

    @cached_property
    def is_rich(self) -> bool:
        """Whether most of what it counts has submodules: an attention, and something beside it."""
        return 2 * sum(map(_is_rich, self.below)) > len(self.below)

    @cached_property
    def counts_maps(self) -> bool:
        """Whether most of what it counts is one map and its name: ``layers.2.convolution``."""
        single = (len(names) == 1 and len(_words(names[0])) == 1 for names in self.below)
        return 2 * sum(single) > len(self.below)


def _sharing(values: list[list[str]]) -> int:
    """How many of them have a name that another has too."""
    seen: dict[str, int] = defaultdict(int)
    for names in values:
        for name in set(names):
            seen[name] += 1
    return sum(any(seen[name] >= FEW for name in names) for names in values)


def _words(name: str) -> list[str]:
    return [part for part in name.split(".") if part.strip("#")]


def _is_rich(names: list[str]) -> bool:
    parts = [_words(name) for name in names]
    return len({p[0] for p in parts if p}) >= FEW and any(len(p) >= FEW for p in parts)


class Layers:
    """The layers of a model. Built once from the paths of all its modules that hold matrices.

    Parameters
    ----------
    modules
        Paths, without what wrappers put into them. The same paths give the same layers in whatever
        order, below whatever prefix, and whatever heads lie beside the blocks. An adapter that has
        only some blocks of a nested stack is counted through without the others.
    """

    def __init__(self, modules: Iterable[str]) -> None:
        self._counts: dict[str, Count] = {}
        self._numbers = {module: _numbers(module) for module in dict.fromkeys(modules)}
        for module, numbers in self._numbers.items():
            for number in numbers:
                count = self._counts.setdefault(number.kind, Count(number.is_plain))
                names = count.lists[number.before].setdefault(number.value, [])
                names.append(_without_numbers(module[number.end :]))
        self._drop_names()
        self._wrappers = {
            number.kind
            for numbers in self._numbers.values()
            for place, number in enumerate(numbers)
            if number.kind in self._counts and self._is_wrapper(number, numbers[place + 1 :])
        }
        self._levels = {module: self._levels_of(n) for module, n in self._numbers.items()}
        if not any(self._levels.values()):  # a network without blocks: its layers are single maps
            self._levels = {module: n[:1] for module, n in self._numbers.items()}
        self._indices = _indices(self._levels)

    def of(self, module: str) -> int | None:
        """Index of the layer that a module is in; None outside of layers."""
        return self._indices.get(self.block(module))

    def block(self, module: str) -> str:
        """Path of the block that a module is in: ``model.layers.3``; empty outside of blocks."""
        levels = self._levels.get(module)
        if levels is None:
            levels = self._levels_of(_numbers(module))
        path = module[: levels[-1].end] if levels else ""
        return path if path in self._indices else ""

    def _drop_names(self) -> None:
        """Forget numbers at the end of a word that count no blocks: ``wav2vec2.``, ``conv1.``."""
        self._counts = {
            kind: count
            for kind, count in self._counts.items()
            if count.is_plain or kind.endswith("_") or (count.most >= FEW and not count.counts_maps)
        }

    def _levels_of(self, numbers: tuple[Number, ...]) -> tuple[Number, ...]:
        """The numbers that count the blocks on this path, outermost first."""
        numbers = tuple(n for n in numbers if n.kind in self._counts)
        numbers = tuple(n for n in numbers if self._counts[n.kind].holds_modules)
        levels: list[Number] = []
        for number in numbers:
            if levels:
                is_level = self._is_nested(levels[-1], number)
            else:
                is_level = number.kind not in self._wrappers
            if is_level:
                levels.append(number)
        return tuple(levels)

    def _is_wrapper(self, outer: Number, inner: tuple[Number, ...]) -> bool:
        """Whether a number counts parts of a pipeline, of which one holds the blocks."""
        if self._counts[outer.kind].recurs:
            return False
        counted = [n for n in inner if n.is_plain and n.kind in self._counts]
        return any(
            self._counts[n.kind].is_rich
            or not outer.before
            or bool(LIKE_BLOCKS.search(n.word) and not LIKE_BLOCKS.search(outer.word))
            for n in counted
            if self._counts[n.kind].recurs and self._counts[n.kind].holds_modules
        )

    def _is_nested(self, outer: Number, inner: Number) -> bool:
        """Whether the inner number counts blocks too, and the outer one stacks of blocks.

        Heads, experts and parts of an attention recur as well. A block has submodules of its own;
        a simpler thing is one only where the outer number holds hardly anything else.
        """
        count = self._counts[inner.kind]
        if not count.all_alike or not (inner.is_plain or count.most > FEW or not outer.is_plain):
            return False
        between = inner.kind.removeprefix(outer.kind + "#")
        is_next = between.count(".") <= FEW
        if count.counts_maps and "block" not in inner.word:
            return False
        return count.is_rich or (is_next and self._holds_little_else(outer.kind))

    def _holds_little_else(self, kind: str) -> bool:
        """Whether all that a number counts lies in lists, but for one map, as a downsampling."""
        for names in self._counts[kind].below:
            others = [n for n in names if not self._is_listed(kind + "#", n)]
            if len(others) > 1:
                return False
        return True

    def _is_listed(self, before: str, name: str) -> bool:
        """Whether a name lies in a list right below, whose members hold modules."""
        at = name.find("#")
        if at < 0 or name[:at].count(".") > FEW:
            return False
        count = self._counts.get(before + name[:at])
        return count is not None and (count.holds_modules or len(name.strip(".#")) == 0)


def _without_numbers(path: str) -> str:
    return NUMBER.sub("#", path)


def _numbers(module: str) -> tuple[Number, ...]:
    """The numbers in a path that may count blocks: those of experts and behind them may not."""
    found = []
    expert = EXPERT.search(module)
    for match in NUMBER.finditer(module, 0, len(module) if expert is None else expert.start()):
        plain = match["plain"] is not None
        found.append(Number(module[: match.start()], int(match[0]), match.end(), plain))
    return tuple(found)


def _indices(levels: Mapping[str, tuple[Number, ...]]) -> dict[str, int]:
    """Path of every block → index of its layer, tower by tower."""
    towers: dict[str, dict[str, tuple[int, ...]]] = defaultdict(dict)
    for module, numbers in levels.items():
        if numbers:
            path = module[: numbers[-1].end]
            towers[numbers[0].before][path] = tuple(n.value for n in numbers)
    found: dict[str, int] = {}
    for blocks in towers.values():
        found |= _counted(_innermost(blocks))
    return found


def _innermost(blocks: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The blocks without the stacks that hold others of them."""
    stacks = {
        path[: match.start()].rstrip(".")
        for path in blocks
        for match in re.finditer(r"\.", path)
        if path[: match.start()] in blocks
    }
    return {path: values for path, values in blocks.items() if path not in stacks}


def _counted(blocks: dict[str, tuple[int, ...]]) -> dict[str, int]:
    """Index of each block of a tower: its own number if that tells it apart, else its place."""
    ordered = sorted(blocks, key=lambda path: (blocks[path], path))
    depth = {len(values) for values in blocks.values()}
    if len(depth) == 1:
        columns = list(zip(*(blocks[path] for path in ordered), strict=True))
        varying = [column for column in columns if len(set(column)) > 1] or columns[-1:]
        inner = varying[-1]
        if len(varying) == 1 and len(set(inner)) == len(inner):
            return dict(zip(ordered, inner, strict=True))
        if all(a < b for a, b in itertools.pairwise(inner)):
            return dict(zip(ordered, inner, strict=True))
    return {path: index for index, path in enumerate(ordered)}
