"""The adapters that a ReLoRA run merged into its weights, as the trainer recorded them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rankscope.checkpoints.contents import Adapter, Skip
from rankscope.checkpoints.files.safetensors_file import open_tensors
from rankscope.checkpoints.manifest import listed_files
from rankscope.checkpoints.steps import step_in_name
from rankscope.checkpoints.tensors import Tensor
from rankscope.errors import RankscopeError, printable

SAFETENSORS = ".safetensors"
SUFFIXES = (".lora_A", ".lora_B", ".scale")


@dataclass(frozen=True)
class Merge:
    """One merge: the step after which it happened, and the adapter of every module."""

    step: int
    path: Path
    adapters: Mapping[str, Adapter]


def find_merges(run: Path) -> tuple[Path, ...]:
    """The files of the merges of a run, in the order of their steps.

    A file that the manifest lists is among them even if it is missing, since a sum without it is
    not that of all merges.
    """
    folder = run / "merges"
    files = {*folder.glob(f"*{SAFETENSORS}"), *listed_files(folder)}
    merges = [path for path in files if path.suffix == SAFETENSORS and _step(path) is not None]
    return tuple(sorted(merges, key=lambda path: _step(path) or 0))


def read_merge(path: Path) -> Merge:
    """Read the header of the file of a merge, and the scales, which are single numbers.

    Raises
    ------
    RankscopeError
        If the file is damaged, or a module lacks a factor or its scale.
    """
    modules: dict[str, dict[str, Tensor]] = {}
    for name, tensor in open_tensors(path).items():
        suffix = next((s for s in SUFFIXES if name.endswith(s)), None)
        if suffix is not None:
            modules.setdefault(name.removesuffix(suffix), {})[suffix] = tensor
    adapters = {}
    for module, parts in modules.items():
        missing = [suffix[1:] for suffix in SUFFIXES if suffix not in parts]
        if missing:
            message = f"has no {', '.join(missing)}"
            raise RankscopeError(message, path=path, tensor=module, reason="adapter-incomplete")
        adapters[module] = _adapter(module, parts, path=path)
    if not adapters:
        raise RankscopeError("records no module", path=path, reason="no-tensors")
    return Merge(_step(path) or 0, path, adapters)


def _adapter(module: str, parts: Mapping[str, Tensor], *, path: Path) -> Adapter:
    """The adapter of a module, whose factors can be multiplied."""
    right, left, scale = (parts[suffix] for suffix in SUFFIXES)
    fits = len(left.shape) == len(right.shape) == 2 and left.shape[1] == right.shape[0]
    if not fits or 0 in (*left.shape, *right.shape):
        message = f"its factors {list(left.shape)} and {list(right.shape)} make no product"
        message = printable(message, limit=200)
        raise RankscopeError(message, path=path, tensor=module, reason="adapter-misfit")
    if math.prod(scale.shape) != 1:
        message = printable(f"its scale of shape {list(scale.shape)} is not one number", limit=200)
        raise RankscopeError(message, path=path, tensor=module, reason="adapter-misfit")
    number = float(scale.read().reshape(-1)[0])
    if not math.isfinite(number):
        message = f"its scale is {number}"
        raise RankscopeError(message, path=path, tensor=module, reason="nonfinite")
    return Adapter(right, left, number)


@dataclass(frozen=True)
class Merges:
    """The merges of a run up to the first that cannot be read; later sums are not known.

    Attributes
    ----------
    read
        In the order of their steps.
    unread
        Steps of the others, as their names say.
    skips
        Why the first of them cannot be read.
    """

    read: tuple[Merge, ...] = ()
    unread: tuple[int, ...] = ()
    skips: tuple[Skip, ...] = ()

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps of all merges."""
        return (*(merge.step for merge in self.read), *self.unread)


NO_MERGES = Merges()


def read_merges(paths: Sequence[Path]) -> Merges:
    """Read the headers of the files of merges, which are in the order of their steps."""
    merges: list[Merge] = []
    for path in paths:
        try:
            merges.append(read_merge(path))
        except RankscopeError as error:
            where = error.path or str(path)
            message = f"{error.message}; this merge and later ones are not measured"
            skip = Skip(where, error.tensor or "", error.reason, message)
            unread = tuple(_step(path) or 0 for path in paths[len(merges) :])
            return Merges(tuple(merges), unread, (skip,))
    return Merges(tuple(merges))


def _step(path: Path) -> int | None:
    return step_in_name(path.stem)
