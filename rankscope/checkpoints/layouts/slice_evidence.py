"""Whether files whose names look sliced are slices: by their numbers, and by what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from rankscope.checkpoints.files.kinds import TORCH, kind_of
from rankscope.checkpoints.files.slice_file import may_be_slice, open_slice
from rankscope.checkpoints.slice_names import SliceName
from rankscope.errors import RankscopeError

SURE_SUFFIXES = (".pt", ".pth", ".ckpt", ".safetensors")  # under which nobody keeps data
PARAMS = "params.json"  # beside what Meta ships


def are_slices(names: tuple[SliceName, ...], files: tuple[Path, ...], *, in_folders: bool) -> bool:
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


def holds_weights(file: Path) -> bool:
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
