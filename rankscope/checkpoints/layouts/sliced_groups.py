"""Files beside each other that hold one checkpoint together, a slice of every tensor each.

Names decide first; a file is opened only where its name looks sliced, one of each group mostly.
What it costs when a group is missed: every slice is analysed as a model. When one is found that is
none: models that differ in a number behind a word such as ``rank`` are refused, with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from rankscope.checkpoints.layouts.slice_evidence import are_slices, holds_weights
from rankscope.checkpoints.layouts.slices_by_name import (
    DEPTH,
    Slices,
    entries_of,
    files_below,
    form_of,
    groups_by_name,
    is_of_weights,
    names_in,
)
from rankscope.checkpoints.slice_names import parsed
from rankscope.checkpoints.steps import step_in_name

FEW = 8  # folders of other steps that are looked at where one has a slice alone


def sliced_groups(paths: Iterable[Path]) -> list[Slices]:
    """The checkpoints that lie in slices among the entries of a folder.

    Parameters
    ----------
    paths
        Files and folders beside each other. Steps and ranks may both vary among them: then there is
        a group for each step.
    """
    entries = sorted(paths)
    groups = groups_by_name(entries)
    return _settled(entries, groups, lambda: groups)


def group_of(file: Path) -> Slices | None:
    """The group that a file belongs to; None if it is by itself.

    Looks at the names of what lies beside it, or beside the folder around it that is named for a
    rank, and opens none of what has a name of another form.
    """
    for one in reversed([file, *file.parents[: DEPTH + 1]]):
        name = parsed(one.name)
        if name is None:
            continue
        names = sorted(names_in(one.parent))
        entries = [one.parent / known for known in names if form_of(known) == name.form]
        inner = None if one == file else file.relative_to(one)
        groups = [group for group in groups_by_name(entries, inner) if file in group.files]
        for group in _settled(entries, groups, partial(_alike, one, name.form)):
            return group
    return None


def _settled(
    entries: Sequence[Path], groups: Sequence[Slices], beside: Callable[[], Sequence[Slices]]
) -> list[Slices]:
    """Those of the groups that are slices, with what stands for each.

    Parameters
    ----------
    beside
        Gives groups in which other steps may be.
    """
    found: list[Slices] = []
    alone = bool(groups) and any(map(_stands_alone, entries))
    for group in groups:
        known = _as_other_steps(group, beside)
        if not are_slices(known.names, known.files, in_folders=known.in_folders):
            alone = True
        elif holds_weights(known.files[0]):
            found.append(known)
    return (
        [replace(one, path=one.folder) for one in found] if len(found) == 1 and not alone else found
    )


def _alike(path: Path, form: str) -> list[Slices]:
    """The groups beside a path whose names differ from its own in digits only."""
    form = _without_digits(form)
    names = (known for known in names_in(path.parent) if _without_digits(form_of(known)) == form)
    return groups_by_name(sorted(path.parent / known for known in names))


def _as_other_steps(group: Slices, beside: Callable[[], Sequence[Slices]]) -> Slices:
    """A first slice by itself, as one of so many slices as other steps have.

    Without this, what is left of a step that lost its other slices would be taken for a model. It
    errs where a training went on with one process, and saved a whole model then: it is refused.
    """
    name, *more = group.names
    if more or name.world or any(name.numbers):
        return group
    others: list[Slices] = []
    if any(step_in_name(part) is not None for part in group.name.split("/")):
        others += beside()
    for place in _folders_of_other_steps(group.folder):
        others += groups_by_name(entries_of(place))
    form = _without_digits(name.form)
    alike = (one for one in others if _without_digits(one.names[0].form) == form)
    largest = max(alike, key=lambda one: len(one.files), default=group)
    if len(largest.files) == 1 or not are_slices(
        largest.names, largest.files, in_folders=largest.in_folders
    ):
        return group
    return replace(group, names=(replace(name, world=len(largest.files)),))


def _folders_of_other_steps(folder: Path) -> list[Path]:
    """The same folder in some other steps, where its name or that of the one around it is one's."""
    for place, inner in ((folder, "."), (folder.parent, folder.name)):
        if step_in_name(place.name) is not None:
            form = _without_digits(place.name)
            names = (n for n in sorted(names_in(place.parent)) if _without_digits(n) == form)
            return [place.parent / name / inner for name in names if name != place.name][:FEW]
    return []


def _without_digits(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def group_around(path: Path) -> Slices | None:
    """The group that a file, or the first file of weights in a folder for a rank, belongs to."""
    if path.is_file():
        return group_of(path)
    if not any(map(_has_others, (path, *path.parents[:DEPTH]))):
        return None
    groups = (group_of(file) for file in files_below(path, DEPTH))
    return next((group for group in groups if group is not None and group.path != path), None)


def _has_others(path: Path) -> bool:
    """Whether a name states a rank, and one beside it another."""
    name = parsed(path.name)
    if name is None:
        return False
    return sum(form_of(known) == name.form for known in names_in(path.parent)) > 1


def _stands_alone(path: Path) -> bool:
    """Whether a file may be a checkpoint beside the slices."""
    return path.suffix != "" and path.is_file() and is_of_weights(path) and not parsed(path.name)
