"""Files of weights beside each other whose names differ only in their ranks; none is opened."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rankscope.checkpoints.files.file_names import NO_MODEL, NO_MODEL_FOLDERS
from rankscope.checkpoints.slicing.slice_names import SliceName, parsed, slice_in_name

SURE_SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors")  # nobody uses them for data
SUFFIXES = (*SURE_SUFFIXES, ".bin", ".npz", ".tar", ".th", ".pkl", "")
DEPTH = 4  # of folders below one that is named for a rank: `rank_0/ckpts/step_100/model/a.pt`
BLOBS = "blobs"  # the folder that links in the cache of the Hugging Face hub point to


@dataclass(frozen=True)
class Slices:
    """One checkpoint stored in slices; or one file that is a whole model by its name.

    Attributes
    ----------
    path
        The path that represents it: its folder if nothing else is in there, else the first file.
    name
        What the names of all files have in common; it may state a step.
    files
        Its files, in the order of their numbers.
    names
        What the name of each file says.
    folder
        Where the files, or the folders named for their ranks, are beside each other.
    in_folders
        Whether the files are in folders named for their ranks.
    """

    path: Path
    name: str
    files: tuple[Path, ...]
    names: tuple[SliceName, ...]
    folder: Path
    in_folders: bool

    @property
    def world(self) -> int:
        """Number of slices that there should be, as far as their names say."""
        return max(len(self.files), *(name.world for name in self.names))

    @property
    def is_whole(self) -> bool:
        """Whether it is one file, and a whole model by its name."""
        first = self.names[0]
        return self.world == 1 and (bool(first.world) or not any(first.numbers))


def groups_by_name(entries: Sequence[Path], inner: Path | None = None) -> list[Slices]:
    """Files whose names differ only in such numbers, whether they are slices or not.

    Parameters
    ----------
    inner
        Look only at this path in folders that are named for a rank.
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
    """Files of weights at or below a sliced name: what they share with other slices, the name."""
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
    """Files with names of weights in a folder, and in folders in it to this depth."""
    for path in entries_of(folder):
        if path.is_dir():
            if depth > 1:
                yield from files_below(path, depth - 1)
        elif is_of_weights(path):
            yield path


def entries_of(folder: Path) -> list[Path]:
    """Entries of a folder that are not hidden; none if it cannot be listed."""
    return [folder / name for name in sorted(names_in(folder))]


def names_in(folder: Path) -> list[str]:
    """Names in a folder that are not hidden; none if it cannot be listed."""
    try:
        return [name for name in (one.name for one in os.scandir(folder)) if name[0] != "."]
    except OSError:
        return []


def form_of(name: str) -> str:
    """A name with marks for its ranks; empty for a name that states none."""
    sliced = parsed(name)
    return "" if sliced is None else sliced.form


def is_of_weights(path: Path) -> bool:
    """Whether the name is that of weights, and not of what a training saves beside them.

    The rank is ignored: `rank-00000-of-00002.pt` is not a shard of a Hugging Face folder.
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

    Where they are in folders for ranks, it includes the folders between: ``step_100/model``.
    """
    if not inner:
        return Path(name.stem).stem
    below = file.parts[-len(Path(inner).parts) :]
    plain = [part if (own := slice_in_name(part)) is None else own[0] for part in below]
    plain[-1] = Path(plain[-1]).stem
    is_bare = name.form.startswith(name.stem) and set(name.form[len(name.stem) :]) <= set("-_.= #")
    return "/".join(plain if is_bare else [name.stem, *plain])
