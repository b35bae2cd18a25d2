"""The count in names that are alike: which of their numbers is the step, if any is.

Names are alike if they differ in numbers only. Among those, the step is a number that varies. A
number that counts steps comes before one that counts epochs, then tokens or samples, then one
beside a word that says nothing. The other numbers that vary must agree with it:

* another number that counts, or a date, does not fall while the step rises;
* a number without a word is a measurement if it comes after the step (so is a learning rate), and
  distinguishes runs if it comes before (``agent3_step_100``).

A number beside a word that says nothing, or before the word that does (``net_500_steps``), is the
step only if it looks like a count: filled with zeros to at least three digits (``style_000250``),
in whole hundreds, in three or more multiples of five that do not keep doubling, followed by a
measured fraction, or if there are at least three and another name for the end (``net_1`` …
``net_final``).

The cost of an error: models called ``net_100`` and ``net_200`` for another reason become a series
(unless they differ in size, see `rankscope.checkpoints.series`); and ``net_1``, ``net_2``, which
may be steps, stay runs of their own, with a note that says so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from rankscope.checkpoints.name_parts import NameParts, Number
from rankscope.checkpoints.name_words import COPIES, ENDS, PLAIN, RESUMED, Kind, Unit

Evidence = Literal["stated", "labelled", "guessed"]
KINDS: tuple[Kind, ...] = ("step", "epoch", "tokens")  # in the order in which the step is chosen


@dataclass(frozen=True)
class Counted:
    """Names that count one training.

    Attributes
    ----------
    members
        The number in each name, and the index of that name among those given; ascending.
    words
        What the names have in common, with ``#step`` and so on in the place of numbers.
    evidence
        ``stated``: the number is a step in any name. ``labelled``: it is among these names.
        ``guessed``: it looks like a count.
    column
        Index of that number among the numbers of a name.
    """

    members: tuple[tuple[int, int], ...]
    words: tuple[str, ...]
    unit: Unit
    evidence: Evidence
    column: int = 0

    @property
    def numbers(self) -> frozenset[int]:
        """All numbers that occur."""
        return frozenset(number for number, _ in self.members)


@dataclass(frozen=True)
class Sibling:
    """One of several names: its index among them, and its parts."""

    index: int
    parts: NameParts

    def number(self, column: int) -> int:
        """The value of one of its numbers, which is whole."""
        return self.parts.numbers[column].count or 0


def core_of(words: Iterable[str]) -> tuple[str, ...]:
    """Words without those that any training may use, or that mean its end, a copy or a restart."""
    core = (word for word in words if word not in ENDS | COPIES | RESUMED | PLAIN)
    return tuple("#" if word.startswith("#") else word for word in core)


def counted_in(
    group: list[Sibling], words: tuple[str, ...], ends: Collection[tuple[str, ...]] = ()
) -> list[Counted]:
    """Series among names that are alike; none if the numbers that vary do not agree.

    Parameters
    ----------
    words
        What the names have in common.
    ends
        The words of names that mean the end of a training.
    """
    bare = tuple(word for word in core_of(words) if word != "#")
    has_end = any(tuple(word for word in end if word != "#") == bare for end in ends)
    chosen = _step_column(group, has_end=has_end)
    if chosen is None:
        return []
    column, evidence = chosen
    apart = _columns_of_runs(group, column)
    if apart is None:
        return []
    if apart:
        runs: dict[tuple[str, ...], list[Sibling]] = {}
        for sibling in group:
            texts = tuple(sibling.parts.numbers[i].text for i in apart)
            runs.setdefault(texts, []).append(sibling)
        left = [i for i in range(len(group[0].parts.numbers)) if i not in apart]
        return [
            replace(counted, column=left[counted.column])
            for texts, run in runs.items()
            for counted in counted_in([_without(one, apart) for one in run], (*words, *texts))
        ]
    members = sorted((sibling.number(column), sibling.index) for sibling in group)
    unit = group[0].parts.numbers[column].unit
    return [Counted(tuple(members), words, unit, evidence, column)]


def _without(sibling: Sibling, columns: tuple[int, ...]) -> Sibling:
    """A name without the numbers that say which run it belongs to."""
    numbers = [number for i, number in enumerate(sibling.parts.numbers) if i not in columns]
    return replace(sibling, parts=replace(sibling.parts, numbers=numbers))


def _columns(group: list[Sibling]) -> list[list[Number]]:
    return [list(column) for column in zip(*(one.parts.numbers for one in group), strict=True)]


def _step_column(group: list[Sibling], *, has_end: bool) -> tuple[int, Evidence] | None:
    """Which number is the step, and how certain that is."""
    columns = _columns(group)
    whole = [i for i, column in enumerate(columns) if all(n.count is not None for n in column)]
    varying = [i for i in whole if len({number.count for number in columns[i]}) > 1]
    changes = any(len({number.text for number in column}) > 1 for column in columns)
    for kind in KINDS:
        among = varying if varying or (changes and not whole) else whole
        labelled = [
            i
            for i in among
            if columns[i][0].kind == kind
            and (columns[i][0].is_stated or not columns[i][0].is_before)
        ]
        if labelled:
            best = max(labelled, key=lambda i: (columns[i][0].is_stated, i))
            return best, "stated" if columns[best][0].is_stated else "labelled"
    for i in varying:
        has_fraction = any(number.count is None for column in columns[i + 1 :] for number in column)
        if (columns[i][0].kind == "free" or columns[i][0].is_before) and (
            _looks_like_count(columns[i], has_fraction=has_fraction)
            or (has_end and len({number.count for number in columns[i]}) > 2)
        ):
            return i, "guessed"
    return None


def _looks_like_count(column: list[Number], *, has_fraction: bool) -> bool:
    texts = {number.text for number in column}
    width = 2 if has_fraction else 3
    if len(set(map(len, texts))) == 1 and any(text.startswith("0") for text in texts):
        return len(next(iter(texts))) >= width
    counts = sorted({number.count or 0 for number in column})
    if has_fraction or all(count % 100 == 0 for count in counts):
        return True
    fives = counts[:-1] if len(counts) > 3 else counts  # a training may end between two of them
    doubles = all(2 * a == b for a, b in pairwise(counts))
    return len(counts) > 2 and all(count % 5 == 0 for count in fives) and not doubles


def _columns_of_runs(group: list[Sibling], step: int) -> tuple[int, ...] | None:
    """Columns whose numbers distinguish runs; None if numbers or dates contradict the step."""
    columns = _columns(group)
    order = sorted(range(len(group)), key=lambda i: group[i].number(step))
    steps = [group[i].number(step) for i in order]
    is_unique = len(set(steps)) == len(steps)
    times = [group[i].parts.times for i in order]
    if any(later < earlier for earlier, later in pairwise(times)):
        return None
    apart = []
    for i, column in enumerate(columns):
        if i == step or len({number.text for number in column}) == 1:
            continue
        counts = [column[index].count for index in order]
        if column[0].kind != "free":
            agrees = _never_falls(counts) and (is_unique or _is_function_of(steps, counts))
            if not agrees:
                return None
        elif i < step:
            rises = len(group) > 2 and is_unique and _never_falls(counts, strictly=True)
            apart += [] if rises else [i]
        elif not is_unique:
            apart.append(i)
    return tuple(apart)


def _never_falls(counts: Sequence[int | None], *, strictly: bool = False) -> bool:
    known = [count for count in counts if count is not None]
    return len(known) == len(counts) and all(
        a < b or (a == b and not strictly) for a, b in pairwise(known)
    )


def _is_function_of(steps: Sequence[int], counts: Sequence[int | None]) -> bool:
    """Whether names with the same step have the same count."""
    return len(set(steps)) == len(set(zip(steps, counts, strict=True)))
