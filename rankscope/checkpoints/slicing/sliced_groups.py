"""Files beside each other that hold one checkpoint together, a slice of every tensor in each.

Names decide first; files are opened only where names look sliced, mostly one per group. Then the
numbers in the names and the content of the files show whether they are slices. The price of a
missed group is that every slice is analysed as a model. The price of a false one is that models
whose names differ in a number after a word such as ``rank`` are refused, with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path

from rankscope.checkpoints.files.kinds import TORCH, kind_of
from rankscope.checkpoints.slicing.slice_file import may_be_slice, open_slice
from rankscope.checkpoints.slicing.slice_names import SliceName, parsed
from rankscope.checkpoints.slicing.slices_by_name import (
    DEPTH,
    SURE_SUFFIXES,
    Slices,
    entries_of,
    files_below,
    form_of,
    groups_by_name,
    is_of_weights,
    names_in,
)
from rankscope.checkpoints.steps import step_in_name
from rankscope.errors import RankscopeError

PARAMS = "params.json"  # beside the files that Meta ships
FEW = 8  # folders of other steps that are looked into for a step with a single slice


def sliced_groups(paths: Iterable[Path]) -> list[Slices]:
    """The checkpoints that are stored in slices among the entries of a folder.

    Parameters
    ----------
    paths
        Files and folders beside each other. If both steps and ranks vary among them, there is a
        group for each step.
    """
    entries = sorted(paths)
    groups = groups_by_name(entries)
    return _settled(entries, groups, lambda: groups)


def group_of(file: Path) -> Slices | None:
    """The group that a file belongs to; None if it is by itself.

    Looks at the names beside it, or beside the folder around it that is named for a rank, and opens
    no file whose name has another form.
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
    """The groups that are slices, each with the path that represents it.

    Parameters
    ----------
    beside
        Returns groups that may be of other steps.
    """
    sliced: list[Slices] = []
    alone = bool(groups) and any(map(_stands_alone, entries))
    for group in groups:
        known = _as_other_steps(group, beside)
        if not are_slices(known.names, known.files, in_folders=known.in_folders):
            alone = True
        elif holds_weights(known.files[0]):
            sliced.append(known)
    if len(sliced) == 1 and not alone:
        return [replace(sliced[0], path=sliced[0].folder)]
    return sliced


def _alike(path: Path, form: str) -> list[Slices]:
    """The groups beside a path whose names differ from its name only in digits."""
    form = _without_digits(form)
    names = (known for known in names_in(path.parent) if _without_digits(form_of(known)) == form)
    return groups_by_name(sorted(path.parent / known for known in names))


def _as_other_steps(group: Slices, beside: Callable[[], Sequence[Slices]]) -> Slices:
    """A first slice by itself, as one of as many slices as other steps have.

    Without this, the rest of a step that lost its other slices would be taken for a model. The
    price is that a whole model is refused if a training continued with one process and saved it.
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
    """The same folder in some other steps, where its name or its parent's name states a step."""
    for place, inner in ((folder, "."), (folder.parent, folder.name)):
        if step_in_name(place.name) is not None:
            form = _without_digits(place.name)
            names = (n for n in sorted(names_in(place.parent)) if _without_digits(n) == form)
            return [place.parent / name / inner for name in names if name != place.name][:FEW]
    return []


def _without_digits(name: str) -> str:
    return re.sub(r"\d+", "#", name)


def group_around(path: Path) -> Slices | None:
    """The group of a file, or of the first file of weights in a folder named for a rank."""
    if path.is_file():
        return group_of(path)
    if not any(map(_has_others, (path, *path.parents[:DEPTH]))):
        return None
    groups = (group_of(file) for file in files_below(path, DEPTH))
    return next((group for group in groups if group is not None and group.path != path), None)


def _has_others(path: Path) -> bool:
    """Whether a name states a rank and another one beside it differs in that rank."""
    name = parsed(path.name)
    if name is None:
        return False
    return sum(form_of(known) == name.form for known in names_in(path.parent)) > 1


def _stands_alone(path: Path) -> bool:
    """Whether a file may be a checkpoint of its own beside the slices."""
    return path.suffix != "" and path.is_file() and is_of_weights(path) and not parsed(path.name)


def are_slices(names: tuple[SliceName, ...], files: tuple[Path, ...], *, in_folders: bool) -> bool:
    """Whether files whose names differ only in such numbers are slices of one checkpoint.

    Numbers that do not count processes (16, 64) are a setting, such as the rank of adapters. So are
    numbers that are sizes of matrices in the files.
    """
    first = names[0]
    if len(names) == 1:
        return _is_slice_alone(first, files[0], in_folders=in_folders)
    has_zero = any(0 in name.numbers or name.is_padded for name in names)
    if in_folders and not has_zero:
        return False
    is_stated = has_zero or first.world > 1
    if not is_stated and (not _are_consecutive(names) or _are_sizes(names, files)):
        return False
    if all(name.is_sure for name in names):
        return True
    begins = min(name.numbers[0] for name in names) <= 1
    return begins and _are_consecutive(names) and _have_names_in_common(files)


def _is_slice_alone(name: SliceName, file: Path, *, in_folders: bool) -> bool:
    """Whether a file without others is one of several, rather than a whole model, by its name.

    The first slice (``rank_0``) is taken for a whole model: trainers that gather the weights let
    the first process save them.
    """
    if name.world:
        return True
    if not any(name.numbers):
        return (in_folders and name.is_sure) or (file.parent / PARAMS).is_file()
    if in_folders:
        return name.is_padded and "rank" in name.form
    return name.is_sure and (name.is_padded or not _are_sizes((name,), (file,)))


def _are_consecutive(names: tuple[SliceName, ...]) -> bool:
    """Whether the numbers at each position are all those from the smallest to the largest."""
    columns = (set(numbers) for numbers in zip(*(n.numbers for n in names), strict=False))
    return all(each == set(range(min(each), max(each) + 1)) for each in columns)


def _are_sizes(names: tuple[SliceName, ...], files: tuple[Path, ...]) -> bool:
    """Whether in every file two or more matrices have the number in its name as their side."""
    for name, file in zip(names, files, strict=True):
        shapes = _shapes(file).values()
        if sum(len(s) > 1 and min(s) == name.numbers[0] for s in shapes) < 2:
            return False
    return True


def _have_names_in_common(files: tuple[Path, ...]) -> bool:
    first, second = (set(_shapes(file)) for file in files[:2])
    return bool(first) and first == second


def _shapes(file: Path) -> Mapping[str, tuple[int, ...]]:
    try:
        return open_slice(file).shapes
    except RankscopeError:
        return {}


def holds_weights(file: Path) -> bool:
    """Whether a file has numbers that may be weights; a damaged one may have had them."""
    try:
        status = file.stat()
    except OSError:
        return False
    return _looks_like_weights(file, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=2**14)
def _looks_like_weights(file: Path, _size: int, _modified: int) -> bool:
    kind = kind_of(file)
    if kind in ("empty", "lfs-pointer", "web-page", "cut-short"):  # the name says what was meant
        return file.suffix in SURE_SUFFIXES
    if kind not in (*TORCH, "safetensors", "npz"):
        return False
    try:
        return may_be_slice(file)
    except RankscopeError:
        return file.suffix in SURE_SUFFIXES
