"""The series in the names of siblings: which names count one training.

Each group of names that are alike is read on its own (`rankscope.checkpoints.alike_names`). Then
what belongs to a series under another name joins it: the last step with a word for the end, a copy,
and what was saved after a training was resumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rankscope.checkpoints.alike_names import KINDS, Counted, Sibling, core_of, counted_in
from rankscope.checkpoints.name_parts import NameParts, parts_of
from rankscope.checkpoints.name_words import COPIES, ENDS, RESUMED, Unit
from rankscope.checkpoints.steps import is_unfinished


@dataclass(frozen=True)
class Siblings:
    """What names say together: series, and groups of other names that differ only in a number."""

    series: tuple[Counted, ...]
    alike: tuple[tuple[int, ...], ...]


def read_siblings(names: Sequence[str]) -> Siblings:
    """Series among the names of siblings, without those that are still being written.

    Examples
    --------
    >>> [counted.members for counted in read_siblings(["epoch_10", "epoch_9_loss_0.5"]).series]
    [((9, 1), (10, 0))]
    >>> read_siblings(["seed1", "seed2"]).series
    ()
    """
    parts = [parts_of(name) for name in names]
    groups: dict[tuple[str, ...], list[Sibling]] = {}
    for index, name in enumerate(names):
        if not (is_unfinished(name) or parts[index].is_no_step):
            groups.setdefault(tuple(parts[index].words), []).append(Sibling(index, parts[index]))
    ends = {core_of(words) for words in groups if set(words) & ENDS}
    counted = [one for words, group in groups.items() for one in counted_in(group, words, ends)]
    siblings = [one for group in groups.values() for one in group]
    series = _with_resumed(_joined(counted, siblings))
    # A single name counts only if it would among any others, or as those of another run do.
    series = [one for one in series if len(one.members) > 1 or one.evidence == "stated"]
    series += _of_other_runs(series, siblings)
    taken = {index for one in series for _, index in one.members}
    rest = [[one.index for one in g if one.index not in taken] for g in _alike(groups.values())]
    return Siblings(tuple(series), tuple(tuple(group) for group in rest if len(group) > 1))


def lone_number(name: str) -> tuple[int, Unit] | None:
    """The number that a name without siblings counts by, and its unit; None if it has none."""
    numbers = parts_of(name).numbers
    for kind in KINDS:
        for number in reversed(numbers):
            if number.kind == kind and number.count is not None:
                return number.count, number.unit
    return None


def _alike(groups: Iterable[list[Sibling]]) -> list[list[Sibling]]:
    """Names that differ in digits only, whatever the digits mean."""
    merged: dict[tuple[str, ...], list[Sibling]] = {}
    for group in groups:
        merged.setdefault(_without_digits(group[0].parts.words), []).extend(group)
    return list(merged.values())


def _without_digits(words: Iterable[str]) -> tuple[str, ...]:
    return tuple("#" if any(c.isdigit() or c == "#" for c in word) else word for word in words)


def _joined(counted: list[Counted], siblings: Sequence[Sibling]) -> list[Counted]:
    """The series, each with names that have an additional word for the end or for a copy.

    ``model_25_final`` continues ``model_10`` and ``model_20``. If the series has that number
    already, the name is another selection of a checkpoint and does not join; a copy does. An
    error: ``last_100`` and ``10`` of two trainings in one folder; the break in the weights then
    shows it.
    """
    special = [one for one in counted if set(one.words) & (ENDS | COPIES)]
    parts = {one.index: one.parts for one in siblings}
    loose = [one for one in siblings if set(one.parts.words) & (ENDS | COPIES)]
    series = []
    for one in counted:
        if one not in special:
            first = parts[one.members[0][1]]
            new = [
                (other.number(one.column), other.index)
                for other in loose
                if _continues(first, other.parts, one.column)
                and (set(other.parts.words) & COPIES or other.number(one.column) not in one.numbers)
            ]
            series.append(replace(one, members=tuple(sorted((*one.members, *new)))))
    taken = {index for one in series for _, index in one.members}
    return series + [one for one in special if not {index for _, index in one.members} & taken]


def _with_resumed(series: list[Counted]) -> list[Counted]:
    """The series, each with what was saved after its training was resumed.

    ``net_resumed_step_300`` continues ``net_step_200``. If the second begins at or before the last
    step of the first, it may have resumed from an earlier step, and the two stay apart.
    """
    joined = [one for one in series if not set(one.words) & RESUMED]
    for later in (one for one in series if set(one.words) & RESUMED):
        firsts = [
            i
            for i, one in enumerate(joined)
            if (core_of(one.words), one.unit) == (core_of(later.words), later.unit)
            and max(one.numbers) < min(later.numbers)
        ]
        if len(firsts) == 1:
            first = joined[firsts[0]]
            joined[firsts[0]] = replace(first, members=(*first.members, *later.members))
        else:
            joined.append(later)
    return joined


def _of_other_runs(series: list[Counted], siblings: Sequence[Sibling]) -> list[Counted]:
    """Single names that differ in digits from a series: ``fold2_epoch_1`` of another run.

    An error: a name that is like this for another reason becomes a run of one checkpoint.
    """
    several = {_without_digits(one.words): one for one in series if len(one.members) > 1}
    taken = {index for one in series for _, index in one.members}
    others = []
    for sibling in siblings:
        like = several.get(_without_digits(sibling.parts.words))
        if like is None or sibling.index in taken or len(sibling.parts.numbers) <= like.column:
            continue
        count = sibling.parts.numbers[like.column].count
        if count is not None:
            words = tuple(sibling.parts.words)
            others.append(replace(like, members=((count, sibling.index),), words=words))
    return others


def _continues(first: NameParts, other: NameParts, column: int) -> bool:
    """Whether a name is like one of a series, apart from words that say nothing about it."""
    pairs = list(zip(first.numbers, other.numbers, strict=False))
    same_kinds = all("free" in (a.kind, b.kind) or a.kind == b.kind for a, b in pairs)
    same_run = all(a.kind != "free" or a.text == b.text for a, b in pairs[:column])
    return (
        core_of(first.words) == core_of(other.words)
        and len(first.numbers) == len(other.numbers)
        and same_kinds
        and same_run
        and other.numbers[column].count is not None
    )
