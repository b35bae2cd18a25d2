"""Files beside each other that hold one checkpoint together, a slice of every tensor each.

Names decide first; a file is opened only where its name looks sliced, one of each group mostly.
What it costs when a group is missed: every slice is analysed as a model. When one is found that is
none: models that differ in a number behind a word such as ``rank`` are refused, with the reason.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from rankscope.checkpoints.files.kinds import TORCH, kind_of
from rankscope.checkpoints.files.slice_file import may_be_slice, open_slice
from rankscope.checkpoints.layouts.single_file import NO_MODEL, NO_MODEL_FOLDERS
from rankscope.checkpoints.slice_names import SliceName, parsed
from rankscope.errors import RankscopeError

SURE_SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors")  # under which nobody keeps data
SUFFIXES = (*SURE_SUFFIXES, ".bin", ".npz", ".tar", ".th", ".pkl", "")
DEPTH = 4  # of folders from one that is named for a rank: `rank_0/ckpts/step_100/model/a.pt`
BLOBS = "blobs"  # where the files of the Hugging Face hub's cache are links to
PARAMS = "params.json"  # beside what Meta ships


@dataclass(frozen=True)
class Slices:
    """One checkpoint that lies in slices; of one file where that is a whole model by its name.

    Attributes
    ----------
    path
        What stands for it: the folder where only its slices lie in there, else the first file.
    name
        What all the files' names have in common, in which a step may be stated.
    files, names
        In the order of their numbers, and what each name says.
    """

    path: Path
    name: str
    files: tuple[Path, ...]
    names: tuple[SliceName, ...]

    @property
    def world(self) -> int:
        """How many slices there are to be, as far as their names say."""
        return max(len(self.files), *(name.world for name in self.names))

    @property
    def is_whole(self) -> bool:
        """Whether it is one file that is a whole model by its name."""
        first = self.names[0]
        return self.world == 1 and (bool(first.world) or not any(first.numbers))


def sliced_groups(paths: Iterable[Path]) -> list[Slices]:
    """The checkpoints that lie in slices among the entries of a folder.

    Parameters
    ----------
    paths
        Files and folders beside each other. Steps and ranks may both vary among them: then there is
        a group for each step.
    """
    entries = sorted(paths)
    members: dict[tuple[str, str], list[tuple[SliceName, Path]]] = {}
    for path in entries:
        for form, name, file in _iter_sliced(path):
            members.setdefault(form, []).append((name, file))
    found: list[Slices] = []
    alone = bool(members) and any(map(_stands_alone, entries))
    for (_, inner), group in members.items():
        group.sort(key=lambda one: one[0].numbers)
        names, files = zip(*group, strict=True)
        if not _are_slices(names, files, in_folders=bool(inner)):
            alone = True
        elif _holds_weights(files[0]):
            found.append(Slices(files[0], _common(names[0], files[0], inner), files, names))
    if len(found) == 1 and not alone:
        (one,) = found
        return [replace(one, path=entries[0].parent)]
    return found


def group_of(file: Path) -> Slices | None:
    """The group that a file belongs to; None if it is by itself.

    Looks at the names of what lies beside it, or beside the folder around it that is named for a
    rank, and opens none of what has a name of another form.
    """
    for one in reversed([file, *file.parents[: DEPTH + 1]]):
        name = parsed(one.name)
        if name is None:
            continue
        beside = (known for known in _names_in(one.parent) if _form(known) == name.form)
        for group in sliced_groups(one.parent / known for known in beside):
            if file in group.files:
                return group
    return None


def group_around(path: Path) -> Slices | None:
    """The group that a file, or the first file of weights in a folder for a rank, belongs to."""
    if path.is_file():
        return group_of(path)
    if not any(map(_has_others, (path, *path.parents[:DEPTH]))):
        return None
    groups = (group_of(file) for file in _files_below(path, DEPTH))
    return next((group for group in groups if group is not None and group.path != path), None)


def _has_others(path: Path) -> bool:
    """Whether a name states a rank, and one beside it another."""
    name = parsed(path.name)
    if name is None:
        return False
    return sum(_form(known) == name.form for known in _names_in(path.parent)) > 1


def _iter_sliced(path: Path) -> Iterator[tuple[tuple[str, str], SliceName, Path]]:
    """Weights that a sliced name leads to: what they share with the other slices, their name."""
    name = parsed(path.name)
    if name is None or (path.is_symlink() and path.resolve().parent.name != BLOBS):
        return
    if not path.is_dir():
        if _is_of_weights(path):
            yield (name.form, ""), name, path
        return
    for file in _files_below(path, DEPTH):
        own, inner = parsed(file.name), file.relative_to(path)
        if own is None:
            yield (name.form, inner.as_posix()), name, file
        else:
            both = replace(name, numbers=name.numbers + own.numbers, world=name.world or own.world)
            yield (name.form, (inner.parent / own.form).as_posix()), both, file


def _files_below(folder: Path, depth: int) -> Iterator[Path]:
    for path in entries_of(folder):
        if path.is_dir():
            if depth > 1:
                yield from _files_below(path, depth - 1)
        elif _is_of_weights(path):
            yield path


def entries_of(folder: Path) -> list[Path]:
    """What lies in a folder, without what is hidden; nothing of one that cannot be listed."""
    return [folder / name for name in sorted(_names_in(folder))]


def _names_in(folder: Path) -> list[str]:
    try:
        return [name for name in (one.name for one in os.scandir(folder)) if name[0] != "."]
    except OSError:
        return []


def _form(name: str) -> str:
    found = parsed(name)
    return "" if found is None else found.form


def _is_of_weights(path: Path) -> bool:
    """Whether the name is that of weights, and not of what a training saves beside them.

    The rank is left out of it: `rank-00000-of-00002.pt` is not the shard of a folder.
    """
    folder, name = path.parent.name, parsed(path.name)
    return (
        path.suffix.lower() in SUFFIXES
        and NO_MODEL.fullmatch(path.name if name is None else name.stem) is None
        and NO_MODEL.fullmatch(folder) is None
        and folder not in NO_MODEL_FOLDERS
    )


def _stands_alone(path: Path) -> bool:
    """Whether a file may be a checkpoint beside the slices."""
    return path.suffix != "" and path.is_file() and _is_of_weights(path) and not parsed(path.name)


def _are_slices(names: tuple[SliceName, ...], files: tuple[Path, ...], *, in_folders: bool) -> bool:
    """Whether files whose names differ in such numbers only are slices of one checkpoint.

    Numbers that no processes have (16, 64) are a setting, such as the rank of adapters; so are
    those that are sizes within the files.
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
    """Whether a file without others is one of several, or is whole by what its name states.

    The first slice (``rank_0``) is taken for a whole model: trainers that gather the weights have
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
    """Whether the numbers in every place are all of those from the smallest to the largest."""
    places = (set(numbers) for numbers in zip(*(n.numbers for n in names), strict=False))
    return all(each == set(range(min(each), max(each) + 1)) for each in places)


def _are_sizes(names: tuple[SliceName, ...], files: tuple[Path, ...]) -> bool:
    """Whether two or more matrices of every file have a side of the number in its name."""
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


def _holds_weights(file: Path) -> bool:
    """Whether a file has numbers that weights may be; one that is damaged may have had them."""
    try:
        status = file.stat()
    except OSError:
        return False
    return _looks_like_weights(file, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=2**14)
def _looks_like_weights(file: Path, _size: int, _modified: int) -> bool:
    kind = kind_of(file)
    if kind in ("empty", "lfs-pointer", "web-page", "cut-short"):  # what it was to be
        return file.suffix in SURE_SUFFIXES
    if kind not in (*TORCH, "safetensors", "npz"):
        return False
    try:
        return may_be_slice(file)
    except RankscopeError:
        return file.suffix in SURE_SUFFIXES


def _common(name: SliceName, file: Path, inner: str) -> str:
    """The name that the slices of a checkpoint have in common, without suffix.

    Where they lie in folders for ranks, the folders between are in it: ``step_100/model``.
    """
    if not inner:
        return Path(name.stem).stem
    below = file.parts[-len(Path(inner).parts) :]
    plain = [part if (own := parsed(part)) is None else own.stem for part in below]
    plain[-1] = Path(plain[-1]).stem
    is_bare = name.form.startswith(name.stem) and set(name.form[len(name.stem) :]) <= set("-_.= #")
    return "/".join(plain if is_bare else [name.stem, *plain])
