"""The layer of a module: which block of the model it is in, by the names of all modules.

A number in a path counts blocks if the same names recur below several numbers. The outermost such
number is the layer. If it counts stacks of blocks (stages of Swin, chunks of DINOv2, levels of a
U-Net), the blocks of all stacks are numbered from 0 in the order of the numbers.

The cost of an error: a matrix is in the wrong row of a figure over layers, and the OV circuit of a
block is not found. Its spectrum, role and updates go by name and stay right.
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

from rankscope.checkpoints.families.names import alike_in_digits
from rankscope.checkpoints.families.path_numbers import (
    FEW,
    Count,
    PathNumber,
    counted_part,
    numbers_in,
    without_numbers,
)

LIKE_BLOCKS = re.compile(r"layer|block|^h$", re.IGNORECASE)


class Layers:
    """The layers of a model, from the paths of all its modules that hold matrices.

    Parameters
    ----------
    modules
        Paths without the parts of wrappers. The same paths give the same layers in any order, below
        any prefix, and with any heads beside the blocks. An adapter on only some blocks of a nested
        stack is numbered without the others.
    """

    def __init__(self, modules: Iterable[str]) -> None:
        self._counts: dict[str, Count] = {}
        self._parts: dict[str, str] = {}
        within: dict[str, list[str]] = {}
        for common, alike in alike_in_digits([*modules]).items():
            end = len(counted_part(common))
            for module in alike:
                part = self._parts[module] = module[:end]
                within.setdefault(part, []).append(module)
        self._numbers = {part: numbers_in(part) for part in within}
        for part, inner in within.items():
            for number in self._numbers[part]:
                count = self._counts.setdefault(number.kind, Count(number.is_plain))
                names = count.lists[number.before].setdefault(number.value, [])
                names += [without_numbers(module[number.end :]) for module in inner]
        self._drop_names()
        self._wrappers = {
            number.kind
            for numbers in self._numbers.values()
            for index, number in enumerate(numbers)
            if number.kind in self._counts and self._is_wrapper(number, numbers[index + 1 :])
        }
        self._levels = {part: self._levels_of(n) for part, n in self._numbers.items()}
        if not any(self._levels.values()):  # a network without blocks: each map is a layer
            self._levels = {part: n[:1] for part, n in self._numbers.items()}
        self._indices = _indices(self._levels)
        self._blocks = {part: self._block_in(part, n) for part, n in self._levels.items()}

    def of(self, module: str) -> int | None:
        """Index of the layer that a module is in; None outside of layers."""
        return self.of_block(self.block(module))

    def of_block(self, block: str) -> int | None:
        """Index of the layer that a block is; None for the empty path, outside of blocks."""
        return self._indices.get(block)

    def block(self, module: str) -> str:
        """Path of the block that a module is in: ``model.layers.3``; empty outside of blocks."""
        part = self._parts.get(module)
        if part is not None:
            return self._blocks[part]
        part = counted_part(module)
        return self._block_in(part, self._levels_of(numbers_in(part)))

    def _block_in(self, part: str, levels: tuple[PathNumber, ...]) -> str:
        """The block that the innermost of these levels of a path counts."""
        path = part[: levels[-1].end] if levels else ""
        return path if path in self._indices else ""

    def _drop_names(self) -> None:
        """Forget numbers at the end of a word that count no blocks: ``wav2vec2.``, ``conv1.``."""
        self._counts = {
            kind: count
            for kind, count in self._counts.items()
            if count.is_plain or kind.endswith("_") or (count.most >= FEW and not count.counts_maps)
        }

    def _levels_of(self, numbers: tuple[PathNumber, ...]) -> tuple[PathNumber, ...]:
        """The numbers on a path that count blocks, outermost first."""
        numbers = tuple(n for n in numbers if n.kind in self._counts)
        numbers = tuple(n for n in numbers if self._counts[n.kind].holds_modules)
        levels: list[PathNumber] = []
        for number in numbers:
            if levels:
                is_level = self._is_nested(levels[-1], number)
            else:
                is_level = number.kind not in self._wrappers
            if is_level:
                levels.append(number)
        return tuple(levels)

    def _is_wrapper(self, outer: PathNumber, inner: tuple[PathNumber, ...]) -> bool:
        """Whether a number counts parts of a pipeline, one of which holds the blocks."""
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

    def _is_nested(self, outer: PathNumber, inner: PathNumber) -> bool:
        """Whether the inner number counts blocks, and the outer one stacks of blocks.

        Heads, experts and parts of an attention recur too. But a block has submodules; something
        simpler is a block only if the outer number holds hardly anything else. What has no
        attention is not a block beside an attention, such as each of several MLPs.
        """
        count = self._counts[inner.kind]
        if not count.all_alike or not (inner.is_plain or count.most > FEW or not outer.is_plain):
            return False
        between = inner.kind.removeprefix(outer.kind + "#")
        is_next = between.count(".") <= FEW
        if self._counts[outer.kind].has_attention and not count.has_attention:
            return False
        if count.counts_maps and "block" not in inner.word:
            return False
        return count.is_rich or (is_next and self._holds_little_else(outer.kind))

    def _holds_little_else(self, kind: str) -> bool:
        """Whether all that a number counts is in lists, except one map, such as a downsampling."""
        for names in self._counts[kind].below:
            others = [n for n in names if not self._is_listed(kind + "#", n)]
            if len(others) > 1:
                return False
        return True

    def _is_listed(self, before: str, name: str) -> bool:
        """Whether a name is in a list directly below, whose members hold modules."""
        at = name.find("#")
        if at < 0 or name[:at].count(".") > FEW:
            return False
        count = self._counts.get(before + name[:at])
        return count is not None and (count.holds_modules or len(name.strip(".#")) == 0)


def _indices(levels: Mapping[str, tuple[PathNumber, ...]]) -> dict[str, int]:
    """Path of every block → index of its layer in its tower."""
    towers: dict[str, dict[str, tuple[int, ...]]] = defaultdict(dict)
    for part, numbers in levels.items():
        if numbers:
            path = part[: numbers[-1].end]
            towers[numbers[0].before][path] = tuple(n.value for n in numbers)
    found: dict[str, int] = {}
    for blocks in towers.values():
        found |= _counted(_innermost(blocks))
    return found


def _innermost(blocks: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The blocks without stacks that contain other blocks."""
    stacks = {
        path[: match.start()].rstrip(".")
        for path in blocks
        for match in re.finditer(r"\.", path)
        if path[: match.start()] in blocks
    }
    return {path: values for path, values in blocks.items() if path not in stacks}


def _counted(blocks: dict[str, tuple[int, ...]]) -> dict[str, int]:
    """Index of each block of a tower: its own number if that is unique, else its rank in order."""
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
