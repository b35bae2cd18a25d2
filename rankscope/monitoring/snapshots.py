"""Copies of matrices for the recorder: files in shared memory, as raw as the model holds them."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rankscope.checkpoints.tensors import StoredTensor
from rankscope.durable import sweep
from rankscope.monitoring.live_model import GRADIENT, Source, dtype_of
from rankscope.writers import own_mark

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

SHARED = Path("/dev/shm")  # memory; elsewhere the system's cache of files does the same

_numbers = itertools.count()  # several monitors of one process have folders side by side


class NotAsPlanned(Exception):
    """A tensor is no longer what it was when the model was looked at."""


class Snapshots:
    """A folder of copies, each in a file of its own, which others may read and remove.

    Its name tells of which process it is; what a killed one left is removed by the next.

    Parameters
    ----------
    above
        Folder to make it in; None for shared memory, or where temporary files are.
    """

    def __init__(self, above: Path | None) -> None:
        memory = SHARED if os.access(SHARED, os.W_OK) else Path(tempfile.gettempdir())
        self._above = memory if above is None else above
        sweep(self._above)
        self.folder = self._new_folder()

    def renew(self) -> None:
        """Forget all copies."""
        self.remove()
        self.folder = self._new_folder()

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def take(
        self, tensors: Iterable[StoredTensor], sources: Mapping[str, Source]
    ) -> dict[str, str]:
        """Copy tensors; a gradient that is not there is left out.

        Returns
        -------
        The file of each, by the name of its source.

        Raises
        ------
        NotAsPlanned
            If one has another shape or format than planned, or is gone.
        OSError
            If there is no room. No copy is left then.
        """
        files: dict[str, str] = {}
        try:
            for stored in tensors:
                source = sources[stored.path]
                is_gradient = stored.path.startswith(GRADIENT)
                tensor = source.gradient() if is_gradient else source.tensor()
                if tensor is None and is_gradient:
                    continue
                if tensor is None or not _is_as_planned(tensor, stored):
                    raise NotAsPlanned(stored.name)
                files[stored.path] = str(self.folder / f"{next(_numbers)}")
                _write(files[stored.path], tensor)
        except BaseException:
            release(files.values())
            raise
        return files

    def _new_folder(self) -> Path:
        name = f".tmp-rankscope-monitor-{own_mark()}-{next(_numbers)}"
        folder = self._above / name
        folder.mkdir(mode=0o700)
        return folder


def release(files: Iterable[str]) -> None:
    """Remove copies that nothing needs any more."""
    for file in files:
        Path(file).unlink(missing_ok=True)


def _is_as_planned(tensor: Tensor, stored: StoredTensor) -> bool:
    shape = tuple(tensor.shape)
    return shape == stored.shape and dtype_of(tensor) == stored.dtype and not tensor.is_sparse


def _write(path: str, tensor: Tensor) -> None:
    """Write the elements in row-major order; a tensor on a device comes to the processor first."""
    import torch

    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    rest = flat.view(torch.uint8).numpy().data
    with Path(path).open("xb", buffering=0) as file:
        while len(rest):
            rest = rest[file.write(rest) :]
