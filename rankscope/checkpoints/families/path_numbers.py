"""`Count`: what the numbers of one kind in the paths of modules count."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

# A part of a path that is a number, or that ends in one and has parts below it.
NUMBER = re.compile(r"(?:(?<=\.)|^)(?P<plain>\d{1,9})(?=\.|$)|(?<=[^\d.])(?P<ending>\d{1,9})(?=\.)")
# The number of an expert: ``experts.3``, ``expert_3``; but not that of a layer of an expert.
EXPERT = re.compile(r"expert[^.\d]*\.?(?=\d)", re.IGNORECASE)
ATTENTION = re.compile(r"att", re.IGNORECASE)
FEW = 2


@dataclass(frozen=True)
class PathNumber:
    """A number in a path: the text before it, and where its part of the path ends."""

    before: str
    value: int
    end: int
    is_plain: bool

    @cached_property
    def kind(self) -> str:
        """The text before it, with its numbers replaced."""
        return without_numbers(self.before)

    @property
    def word(self) -> str:
        """The last word before it."""
        return self.before.rstrip(".").rpartition(".")[2]


@dataclass
class Count:
    """All numbers of one kind: what is below each value, in each list of modules.

    Attributes
    ----------
    lists
        For each path before such a number: its values, and the names below each, without numbers.
    """

    is_plain: bool = True
    lists: dict[str, dict[int, list[str]]] = field(default_factory=lambda: defaultdict(dict))

    @cached_property
    def below(self) -> list[list[str]]:
        """The names below each value in each list."""
        return [names for values in self.lists.values() for names in values.values()]

    @cached_property
    def most(self) -> int:
        """The number of values in the longest list."""
        return max(map(len, self.lists.values()))

    @cached_property
    def holds_modules(self) -> bool:
        """Whether it has named modules below it, and not only the members of a sequence."""
        return any(name.strip(".#") for names in self.below for name in names)

    @cached_property
    def recurs(self) -> bool:
        """Whether in some list at least half of the values share a name with another value."""
        return any(
            len(values) >= FEW and 2 * _sharing(list(values.values())) >= len(values)
            for values in self.lists.values()
        )

    @cached_property
    def all_alike(self) -> bool:
        """Whether it recurs, and every value shares a name with another in its list."""
        several = [list(v.values()) for v in self.lists.values() if len(v) >= FEW]
        return self.recurs and all(_sharing(values) == len(values) for values in several)

    @cached_property
    def is_rich(self) -> bool:
        """Whether most of what it counts has submodules: an attention, and something beside it."""
        return 2 * sum(map(_is_rich, self.below)) > len(self.below)

    @cached_property
    def has_attention(self) -> bool:
        """Whether most of what it counts has an attention that is not in a list below it."""
        return 2 * sum(any(map(_is_attention, names)) for names in self.below) > len(self.below)

    @cached_property
    def counts_maps(self) -> bool:
        """Whether most of what it counts is a single map: ``layers.2.convolution``."""
        single = (len(names) == 1 and len(_words(names[0])) == 1 for names in self.below)
        return 2 * sum(single) > len(self.below)


def _sharing(values: list[list[str]]) -> int:
    """How many of them share a name with another."""
    seen: dict[str, int] = defaultdict(int)
    for names in values:
        for name in set(names):
            seen[name] += 1
    return sum(any(seen[name] >= FEW for name in names) for names in values)


def _is_attention(name: str) -> bool:
    return "#" not in name and bool(ATTENTION.search(name))


def _words(name: str) -> list[str]:
    return [part for part in name.split(".") if part.strip("#")]


def _is_rich(names: list[str]) -> bool:
    parts = [_words(name) for name in names]
    return len({p[0] for p in parts if p}) >= FEW and any(len(p) >= FEW for p in parts)


@lru_cache(maxsize=4096)  # the paths of layers and experts share nearly all of their parts
def without_numbers(path: str) -> str:
    """A path with ``#`` in the place of its numbers."""
    return NUMBER.sub("#", path)


def counted_part(module: str) -> str:
    """The part of a path whose numbers may count blocks: all before those of experts."""
    expert = EXPERT.search(module)
    return module if expert is None else module[: expert.start()]


def numbers_in(part: str) -> tuple[PathNumber, ...]:
    """The numbers in a `counted_part`."""
    found = []
    for match in NUMBER.finditer(part):
        plain = match["plain"] is not None
        found.append(PathNumber(part[: match.start()], int(match[0]), match.end(), plain))
    return tuple(found)
