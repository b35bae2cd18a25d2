"""What the names of siblings say together: which of their numbers counts the training.

The rule is of the set and not of one name. Names are alike if they are the same but for numbers. In
names that are alike, the step is a number that varies: one that counts steps before one that counts
epochs, before tokens or samples, before one beside a word that says nothing. What else varies must
go with it:

* another number that counts does not fall while the step rises, nor do dates;
* a number without a word behind the step was measured then, and one before it tells runs apart
  (``agent3_step_100``).

A number beside a word that says nothing, or before the one that does (``net_500_steps``), is the
step only if it looks like a count: filled with zeros to three digits or more (``style_000250``),
in whole hundreds, in three or more multiples of five that do not double each time, followed by a
measured fraction, or if there are three or more and one for the end (``net_1`` … ``net_final``).
What that costs: models that are called ``net_100`` and ``net_200`` for another reason become a
series, which a difference in size still prevents (`rankscope.checkpoints.series`); and ``net_1``,
``net_2``, which may be steps, stay runs of their own, with a line that says so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from rankscope.checkpoints.name_parts import NameParts, Number, Unit, parts_of
from rankscope.checkpoints.name_words import COPIES, ENDS, PLAIN, RESUMED, Kind
from rankscope.checkpoints.steps import is_unfinished

Evidence = Literal["stated", "labelled", "guessed"]
KINDS: tuple[Kind, ...] = ("step", "epoch", "tokens")  # by which the step is chosen


@dataclass(frozen=True)
class Counted:
    """Names that count one training.

    Attributes
    ----------
    members
        The number of each, and its place among the names that were given; ascending.
    words
        What they have in common, with ``#step`` and so on where numbers stand.
    evidence
        Whether the number is a step in any name, in such a set, or looks like a count.
    column
        Which of the numbers of a name it is.
    """

    members: tuple[tuple[int, int], ...]
    words: tuple[str, ...]
    unit: Unit
    evidence: Evidence
    column: int = 0

    @property
    def numbers(self) -> frozenset[int]:
        """All that occur."""
        return frozenset(number for number, _ in self.members)


@dataclass(frozen=True)
class Siblings:
    """What names say together: series, and groups of names that differ in a number only."""

    series: tuple[Counted, ...]
    alike: tuple[tuple[int, ...], ...]


def core_of(words: Iterable[str]) -> tuple[str, ...]:
    """Words without those that every training uses, or that mean its end, a copy, or going on."""
    core = (word for word in words if word not in ENDS | COPIES | RESUMED | PLAIN)
    return tuple("#" if word.startswith("#") else word for word in core)


def read_siblings(names: Sequence[str]) -> Siblings:
    """Series among names of siblings; names that are still being written take no part.

    Examples
    --------
    >>> [counted.members for counted in read_siblings(["epoch_10", "epoch_9_loss_0.5"]).series]
    [((9, 1), (10, 0))]
    >>> read_siblings(["seed1", "seed2"]).series
    ()
    """
    parts = [parts_of(name) for name in names]
    groups: dict[tuple[str, ...], list[_Sibling]] = {}
    for place, name in enumerate(names):
        if not is_unfinished(name):
            groups.setdefault(tuple(parts[place].words), []).append(_Sibling(place, parts[place]))
    ends = {core_of(words) for words in groups if set(words) & ENDS}
    found = [one for words, group in groups.items() for one in _counted(group, words, ends)]
    siblings = [one for group in groups.values() for one in group]
    series = _with_resumed(_joined(found, siblings))
    # One name alone counts only if it would among any others, or as those of another run do.
    series = [one for one in series if len(one.members) > 1 or one.evidence == "stated"]
    series += _of_other_runs(series, siblings)
    taken = {place for one in series for _, place in one.members}
    rest = [[one.place for one in g if one.place not in taken] for g in _alike(groups.values())]
    return Siblings(tuple(series), tuple(tuple(group) for group in rest if len(group) > 1))


def lone_number(name: str) -> tuple[int, Unit] | None:
    """The number that a name without siblings counts by, as far as its words tell."""
    numbers = parts_of(name).numbers
    for kind in KINDS:
        for number in reversed(numbers):
            if number.kind == kind and number.count is not None:
                return number.count, number.unit
    return None


@dataclass(frozen=True)
class _Sibling:
    place: int
    parts: NameParts


def _alike(groups: Iterable[list[_Sibling]]) -> list[list[_Sibling]]:
    """Names that differ in digits only, whatever these mean."""
    found: dict[tuple[str, ...], list[_Sibling]] = {}
    for group in groups:
        found.setdefault(_without_digits(group[0].parts.words), []).extend(group)
    return list(found.values())


def _without_digits(words: Iterable[str]) -> tuple[str, ...]:
    return tuple("#" if any(c.isdigit() or c == "#" for c in word) else word for word in words)


def _counted(
    group: list[_Sibling], words: tuple[str, ...], ends: Collection[tuple[str, ...]] = ()
) -> list[Counted]:
    """Series among names that are alike; none where what varies does not go together."""
    bare = tuple(word for word in core_of(words) if word != "#")
    chosen = _chosen(group, has_end=any(tuple(w for w in end if w != "#") == bare for end in ends))
    if chosen is None:
        return []
    column, evidence = chosen
    key = _runs_apart(group, column)
    if key is None:
        return []
    if key:
        apart: dict[tuple[str, ...], list[_Sibling]] = {}
        for one in group:
            apart.setdefault(tuple(one.parts.numbers[i].text for i in key), []).append(one)
        left = [i for i in range(len(group[0].parts.numbers)) if i not in key]
        return [
            replace(found, column=left[found.column])
            for texts, some in apart.items()
            for found in _counted([_fixed(one, key) for one in some], (*words, *texts))
        ]
    members = sorted((_count(one, column), one.place) for one in group)
    unit = group[0].parts.numbers[column].unit
    return [Counted(tuple(members), words, unit, evidence, column)]


def _fixed(one: _Sibling, columns: tuple[int, ...]) -> _Sibling:
    """A name without the numbers that tell its run."""
    numbers = [number for i, number in enumerate(one.parts.numbers) if i not in columns]
    return replace(one, parts=replace(one.parts, numbers=numbers))


def _count(one: _Sibling, column: int) -> int:
    return one.parts.numbers[column].count or 0


def _columns(group: list[_Sibling]) -> list[list[Number]]:
    return [list(column) for column in zip(*(one.parts.numbers for one in group), strict=True)]


def _chosen(group: list[_Sibling], *, has_end: bool) -> tuple[int, Evidence] | None:
    """Which number is the step, and how surely."""
    columns = _columns(group)
    whole = [i for i, column in enumerate(columns) if all(n.count is not None for n in column)]
    varying = [i for i in whole if len({number.count for number in columns[i]}) > 1]
    changes = any(len({number.text for number in column}) > 1 for column in columns)
    for kind in KINDS:
        among = varying if varying or (changes and not whole) else whole
        named = [
            i
            for i in among
            if columns[i][0].kind == kind
            and (columns[i][0].is_stated or not columns[i][0].is_before)
        ]
        if named:
            best = max(named, key=lambda i: (columns[i][0].is_stated, i))
            return best, "stated" if columns[best][0].is_stated else "labelled"
    for i in varying:
        fractions = any(number.count is None for column in columns[i + 1 :] for number in column)
        if (columns[i][0].kind == "free" or columns[i][0].is_before) and (
            _looks_counted(columns[i], is_measured=fractions)
            or (has_end and len({number.count for number in columns[i]}) > 2)
        ):
            return i, "guessed"
    return None


def _looks_counted(column: list[Number], *, is_measured: bool) -> bool:
    texts = {number.text for number in column}
    width = 2 if is_measured else 3
    if len(set(map(len, texts))) == 1 and any(text.startswith("0") for text in texts):
        return len(next(iter(texts))) >= width
    counts = sorted({number.count or 0 for number in column})
    if is_measured or all(count % 100 == 0 for count in counts):
        return True
    fives = counts[:-1] if len(counts) > 3 else counts  # a training may end between two of them
    doubles = all(2 * a == b for a, b in pairwise(counts))
    return len(counts) > 2 and all(count % 5 == 0 for count in fives) and not doubles


def _runs_apart(group: list[_Sibling], step: int) -> tuple[int, ...] | None:
    """Places of the numbers that tell runs apart; None if numbers or dates contradict the step."""
    columns = _columns(group)
    order = sorted(range(len(group)), key=lambda i: _count(group[i], step))
    counts = [_count(group[i], step) for i in order]
    is_unique = len(set(counts)) == len(counts)
    times = [group[i].parts.times for i in order]
    if any(later < earlier for earlier, later in pairwise(times)):
        return None
    apart = []
    for i, column in enumerate(columns):
        if i == step or len({number.text for number in column}) == 1:
            continue
        ordered = [column[place].count for place in order]
        if column[0].kind != "free":
            if not _never_falls(ordered) or (not is_unique and not _same_where(counts, ordered)):
                return None
        elif i < step:
            rises = len(group) > 2 and is_unique and _never_falls(ordered, strictly=True)
            apart += [] if rises else [i]
        elif not is_unique:
            apart.append(i)
    return tuple(apart)


def _never_falls(counts: Sequence[int | None], *, strictly: bool = False) -> bool:
    known = [count for count in counts if count is not None]
    return len(known) == len(counts) and all(a < b or (a == b and not strictly) for a, b in
                                             pairwise(known))  # fmt: skip


def _same_where(steps: Sequence[int], counts: Sequence[int | None]) -> bool:
    """Whether names of one step agree in another number that counts."""
    return len(set(steps)) == len(set(zip(steps, counts, strict=True)))


def _joined(found: list[Counted], siblings: Sequence[_Sibling]) -> list[Counted]:
    """The series, with those in them that have a word more for the end or for a copy.

    ``model_25_final`` follows ``model_10`` and ``model_20``: its number is theirs to go on with. If
    they have it already, it is another choice of a checkpoint, and not of this series; a copy is.
    Errs where ``last_100`` and ``10`` are of two trainings in one folder, which the break in the
    weights then shows.
    """
    special = [one for one in found if set(one.words) & (ENDS | COPIES)]
    parts = {one.place: one.parts for one in siblings}
    loose = [one for one in siblings if set(one.parts.words) & (ENDS | COPIES)]
    series = []
    for one in found:
        if one not in special:
            first = parts[one.members[0][1]]
            new = [
                (_count(other, one.column), other.place)
                for other in loose
                if _goes_on(first, other.parts, one.column)
                and (set(other.parts.words) & COPIES
                     or _count(other, one.column) not in one.numbers)
            ]  # fmt: skip
            series.append(replace(one, members=tuple(sorted((*one.members, *new)))))
    taken = {place for one in series for _, place in one.members}
    return series + [one for one in special if not {place for _, place in one.members} & taken]


def _with_resumed(series: list[Counted]) -> list[Counted]:
    """The series, with what was written after a training was taken up again behind its own.

    ``net_resumed_step_300`` follows ``net_step_200``. Where the two have steps in common or among
    each other, the second may have begun anew from an earlier step, and they stay two.
    """
    found = [one for one in series if not set(one.words) & RESUMED]
    for later in (one for one in series if set(one.words) & RESUMED):
        place = [
            i
            for i, one in enumerate(found)
            if (core_of(one.words), one.unit) == (core_of(later.words), later.unit)
            and max(one.numbers) < min(later.numbers)
        ]
        if len(place) == 1:
            first = found[place[0]]
            found[place[0]] = replace(first, members=(*first.members, *later.members))
        else:
            found.append(later)
    return found


def _of_other_runs(series: list[Counted], siblings: Sequence[_Sibling]) -> list[Counted]:
    """Names alone that differ in digits from those of a series: ``fold2_epoch_1`` of another run.

    Errs where that one was called so for another reason: it is a run of one checkpoint then.
    """
    several = {_without_digits(one.words): one for one in series if len(one.members) > 1}
    taken = {place for one in series for _, place in one.members}
    found = []
    for one in siblings:
        like = several.get(_without_digits(one.parts.words))
        if like is None or one.place in taken or len(one.parts.numbers) <= like.column:
            continue
        count = one.parts.numbers[like.column].count
        if count is not None:
            words = tuple(one.parts.words)
            found.append(replace(like, members=((count, one.place),), words=words))
    return found


def _goes_on(first: NameParts, other: NameParts, column: int) -> bool:
    """Whether a name is like one of a series but for words that tell nothing of its training."""
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
