"""The series among checkpoints that are beside each other: one for each training.

`arrangement_of` reads their names together and puts each series in order.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

from rankscope.checkpoints.alike_names import Counted
from rankscope.checkpoints.layouts.layout import Step
from rankscope.checkpoints.name_parts import parts_of
from rankscope.checkpoints.name_words import COPIES, Unit
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.run import Checkpoint
from rankscope.checkpoints.series_titles import natural, titles_of
from rankscope.checkpoints.sibling_names import read_siblings
from rankscope.checkpoints.steps import stage_in_name, suffix_of, tokens_in_name
from rankscope.checkpoints.survey import fault_of

FROM_NAMES = ("folder", "file")  # sources of a step that are only the name
SAME_SIZE = 0.1  # by how much checkpoints of one training may differ in bytes


@dataclass(frozen=True)
class Candidate:
    """A folder or file that may be a checkpoint of a run; its run is not known yet.

    Attributes
    ----------
    name
        Of its folder or branch, or of its file without the suffix. If it is below the folder of a
        step, the path from there: ``step_100/model``.
    layout
        Empty if its content is not recognised.
    step
        Its step and the source of that; None if unknown.
    """

    path: Path
    name: str
    layout: str
    step: Step | None
    stage: str | None = None

    @property
    def stated(self) -> Step | None:
        """The step, if more than the name states it."""
        return None if self.step is None or self.step[1] in FROM_NAMES else self.step

    @property
    def kind(self) -> str:
        """The suffix of a file; a slash for a folder."""
        return suffix_of(self.path) if self.path.is_file() else "/"

    def at(self, step: Step, options: Options, *, usual: str = "") -> Checkpoint:
        """The checkpoint of this step, in the layout ``usual`` if its own is not recognised."""
        tokens = tokens_in_name(self.name)
        fault = "" if self.layout else fault_of(self.path) or "holds no weights that are known"
        return Checkpoint(self.path, *step, self.layout or usual, options, tokens, fault)


@dataclass
class Series:
    """Checkpoints of one training in order.

    Attributes
    ----------
    members
        The checkpoint of each step, and the source of that step.
    words
        What their names have in common.
    title
        What distinguishes it from the other series in the folder; empty for the main one.
    doubles
        Checkpoints that are left out because another has their step; each with that step.
    contradicted
        Members that state another step than their names do; each with the step of its name.
    """

    members: dict[int, tuple[Candidate, str]]
    words: tuple[str, ...] = ()
    unit: Unit = "step"
    stage: str | None = None
    title: str = ""
    doubles: list[tuple[Candidate, int]] = field(default_factory=list)
    contradicted: list[tuple[Candidate, int]] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """The names of its checkpoints."""
        return [candidate.name for candidate, _ in self.members.values()]

    def checkpoints(self, options: Options) -> tuple[Checkpoint, ...]:
        """The checkpoints in order. One that is not recognised is given the most common layout."""
        layouts = Counter(one.layout for one, _ in self.members.values() if one.layout)
        usual = layouts.most_common(1)[0][0]
        return tuple(
            candidate.at((step, source), options, usual=usual)
            for step, (candidate, source) in sorted(self.members.items())
        )


@dataclass(frozen=True)
class Arrangement:
    """Series among siblings, the others, and groups of others that differ in a number only."""

    series: list[Series]
    rest: list[Candidate]
    alike: list[list[Candidate]]


def arrangement_of(candidates: Sequence[Candidate]) -> Arrangement:
    """Find the series among candidates that are beside each other.

    One that is not recognised keeps its step if its name belongs to a series and it is of the same
    kind as the others: a file with their suffix, or a folder. An error costs a line about a file
    that was never a checkpoint.
    """
    siblings = read_siblings([one.name for one in candidates])
    series: list[Series] = []
    groups = [list(group) for group in siblings.alike]
    for counted in siblings.series:
        members = [(number, candidates[index]) for number, index in counted.members]
        kinds = {one.kind for _, one in members if one.layout}
        members = [
            (n, one) for n, one in members if one.layout or one.kind in kinds or "/" in one.name
        ]
        if kinds and _fit([one for _, one in members if one.layout], counted):
            series += _divided(members, counted)
        else:
            groups.append([index for _, index in counted.members])
    taken = {id(one) for s in series for one, _ in s.members.values()}
    taken |= {id(one) for s in series for one, _ in s.doubles}
    rest = [one for one in candidates if id(one) not in taken]
    alike = [[candidates[i] for i in group if id(candidates[i]) not in taken] for group in groups]
    titles = titles_of([one.words for one in series], [one.names for one in series])
    for one, title in zip(series, titles, strict=True):
        one.title = one.stage or title
    series.sort(key=lambda one: natural(one.title))
    return Arrangement(series, rest, [[f for f in group if f.layout] for group in alike])


def _fit(candidates: Sequence[Candidate], counted: Counted) -> bool:
    """Whether checkpoints are similar enough to be the series that their names say.

    Names that state a step are enough. Otherwise all folders must have one layout, so that a model
    and an adapter called ``epoch-1`` and ``epoch-2`` are two runs. If the number is only guessed to
    be the step, most must also have about the same number of bytes.
    """
    if counted.evidence == "stated":
        return True
    if len({one.layout for one in candidates if one.kind == "/"}) > 1:
        return False
    return counted.evidence == "labelled" or _of_one_size(candidates)


def _of_one_size(candidates: Iterable[Candidate]) -> bool:
    sizes = sorted(_size(one.path) for one in candidates)
    usual = sizes[len(sizes) // 2]
    alike = [size for size in sizes if abs(size - usual) <= SAME_SIZE * usual]
    return 2 * len(alike) > len(sizes)


def _size(path: Path) -> int:
    try:
        if path.is_file():
            return path.stat().st_size
        with os.scandir(path) as entries:
            return sum(entry.stat().st_size for entry in entries if entry.is_file())
    except OSError:
        return 0


def _divided(members: Sequence[tuple[int, Candidate]], counted: Counted) -> list[Series]:
    """The series of these names, or one per kind of file if those have the same steps."""
    whole = _series(members, counted)
    kinds = sorted({one.kind for _, one in members})
    if not whole.doubles or len(kinds) == 1:
        return [whole]
    parts = []
    for kind in kinds:
        some = [(number, one) for number, one in members if one.kind == kind]
        words = (*counted.words, kind.strip("./") or "folders")
        if any(one.layout for _, one in some):
            parts.append(_series(some, replace(counted, words=words)))
    return [whole] if any(part.doubles for part in parts) else parts


def _series(members: Sequence[tuple[int, Candidate]], counted: Counted) -> Series:
    steps, unit = _steps(members, counted.unit)
    series = Series({}, counted.words, unit, stage_in_name(members[0][1].name))
    for (step, source), one in sorted(steps, key=lambda entry: _trust(entry[1])):
        if step in series.members:
            series.doubles.append((one, step))
        else:
            series.members[step] = (one, source)
    if counted.evidence == "stated" and counted.unit == "step":
        series.contradicted = [
            (one, number) for number, one in members if one.stated and one.stated[0] != number
        ]
    return series


def _trust(one: Candidate) -> tuple[bool, bool, int, str]:
    """Key that sorts candidates for one step: the first is taken, the others are left out."""
    is_copy = bool(COPIES & set(parts_of(one.name).words))
    return not one.layout, is_copy, len(one.name), one.name


def _steps(
    members: Sequence[tuple[int, Candidate]], unit: Unit
) -> tuple[list[tuple[Step, Candidate]], Unit]:
    """Step of each: what the checkpoints themselves state, if all do and it rises with the names.

    Otherwise the numbers in the names count for all, since two ways of counting do not mix. What
    some checkpoints state is, for example, the step within an epoch.
    """
    known = [(number, one.stated[0]) for number, one in members if one.stated is not None]
    by_name = [(_named(number, one), one) for number, one in members]
    if not known:
        return by_name, unit
    if all(number == step for number, step in known):
        return [(one.stated or step, one) for step, one in by_name], "step"
    pairs = sorted(set(known))
    rises = all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(pairs))
    if len(known) == len(members) and rises:
        return [(one.stated or step, one) for step, one in by_name], "step"
    return by_name, unit


def _named(number: int, one: Candidate) -> Step:
    is_in_file = "/" not in one.name and one.path.is_file()
    return number, "file" if is_in_file else "folder"
