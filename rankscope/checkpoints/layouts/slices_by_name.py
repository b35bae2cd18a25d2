"""Files of weights beside each other whose names differ in their ranks alone; none is opened."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rankscope.checkpoints.layouts.single_file import NO_MODEL, NO_MODEL_FOLDERS
from rankscope.checkpoints.layouts.slice_evidence import SURE_SUFFIXES
from rankscope.checkpoints.slice_names import SliceName, parsed, slice_in_name

SUFFIXES = (*SURE_SUFFIXES, ".bin", ".npz", ".tar", ".th", ".pkl", "")
DEPTH = 4  # of folders from one that is named for a rank: `rank_0/ckpts/step_100/model/a.pt`
BLOBS = "blobs"  # where the files of the Hugging Face hub's cache are links to


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
    folder
        In which they, or the folders for their ranks, lie beside each other.
    in_folders
        Whether they lie in folders for their ranks.
    """

    path: Path
    name: str
    files: tuple[Path, ...]
    names: tuple[SliceName, ...]
    folder: Path
    in_folders: bool

    @property
    def world(self) -> int:
        """How many slices there are to be, as far as their names say."""
        return max(len(self.files), *(name.world for name in self.names))

    @property
    def is_whole(self) -> bool:
        """Whether it is one file that is a whole model by its name."""
        first = self.names[0]
        return self.world == 1 and (bool(first.world) or not any(first.numbers))


def groups_by_name(entries: Sequence[Path], inner: Path | None = None) -> list[Slices]:
    """Files whose names differ in such numbers only, whether they are slices or not.

    Parameters
    ----------
    inner
        Look at this place alone in folders that are named for a rank.
    """
    members: dict[tuple[str, str], list[tuple[SliceName, Path]]] = {}
    for path in entries:
        for form, name, file in _iter_sliced(path, inner):
            members.setdefault(form, []).append((name, file))
    groups = []
    for (_, place), group in members.items():
        group.sort(key=lambda one: one[0].numbers)
        names, files = zip(*group, strict=True)
        shared, folder = _common(names[0], files[0], place), entries[0].parent
        groups.append(Slices(files[0], shared, files, names, folder, bool(place)))
    return groups


def _iter_sliced(
    path: Path, inner: Path | None = None
) -> Iterator[tuple[tuple[str, str], SliceName, Path]]:
    """Weights that a sliced name leads to: what they share with the other slices, their name."""
    name = parsed(path.name)
    if name is None or (path.is_symlink() and path.resolve().parent.name != BLOBS):
        return
    if not path.is_dir():
        if is_of_weights(path):
            yield (name.form, ""), name, path
        return
    files = files_below(path, DEPTH) if inner is None else files_below(path / inner.parent, 1)
    for file in files:
        own, place = parsed(file.name), file.relative_to(path)
        if own is None:
            yield (name.form, place.as_posix()), name, file
        else:
            both = replace(name, numbers=name.numbers + own.numbers, world=name.world or own.world)
            yield (name.form, (place.parent / own.form).as_posix()), both, file


def files_below(folder: Path, depth: int) -> Iterator[Path]:
    """Files that are called weights in a folder, and in those in it to this depth."""
    for path in entries_of(folder):
        if path.is_dir():
            if depth > 1:
                yield from files_below(path, depth - 1)
        elif is_of_weights(path):
            yield path


def entries_of(folder: Path) -> list[Path]:
    """What lies in a folder, without what is hidden; nothing of one that cannot be listed."""
    return [folder / name for name in sorted(names_in(folder))]


def names_in(folder: Path) -> list[str]:
    """Names in a folder without those that are hidden; none of one that cannot be listed."""
    try:
        return [name for name in (one.name for one in os.scandir(folder)) if name[0] != "."]
    except OSError:
        return []


def form_of(name: str) -> str:
    """A name with marks for its ranks; empty for one that states none."""
    found = parsed(name)
    return "" if found is None else found.form


def is_of_weights(path: Path) -> bool:
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


def _common(name: SliceName, file: Path, inner: str) -> str:
    """The name that the slices of a checkpoint have in common, without suffix.

    Where they lie in folders for ranks, the folders between are in it: ``step_100/model``.
    """
    if not inner:
        return Path(name.stem).stem
    below = file.parts[-len(Path(inner).parts) :]
    plain = [part if (own := slice_in_name(part)) is None else own[0] for part in below]
    plain[-1] = Path(plain[-1]).stem
    is_bare = name.form.startswith(name.stem) and set(name.form[len(name.stem) :]) <= set("-_.= #")
    return "/".join(plain if is_bare else [name.stem, *plain])
