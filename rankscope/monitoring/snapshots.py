"""Copies of matrices for the recorder: files in shared memory, as raw as the model holds them."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rankscope.checkpoints.tensors import StoredTensor
from rankscope.durable import sweep
from rankscope.monitoring.live_model import GRADIENT, Source, dtype_of
from rankscope.platforms import BINARY
from rankscope.writers import own_mark

if TYPE_CHECKING:
    from torch import Tensor

SHARED = Path("/dev/shm")  # memory; elsewhere the system's cache of files does the same
_numbers = itertools.count()  # several monitors of one process have folders side by side


class NotAsPlanned(Exception):
    """A tensor is no longer what it was when the model was looked at."""


class Snapshots:
    """A folder of copies, which others may read and remove: a file for each group of tensors.

    Its name identifies its process; what a killed one left is removed by the next.

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
    ) -> dict[str, tuple[str, int]]:
        """Copy tensors into one file; a gradient that is not there is left out.

        Returns
        -------
        The place of each, by the name of its source.

        Raises
        ------
        NotAsPlanned
            If one has another shape or format than planned, or is gone.
        OSError
            If there is no room. No copy is left then.
        """
        there = {one.path: (one, _now(one, sources)) for one in tensors}
        values = {path: tensor for path, (one, tensor) in there.items() if tensor is not None}
        if not values:
            return {}
        file = f"{self.folder}/{next(_numbers)}"
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | BINARY, 0o600)
        places, end = {}, 0
        try:
            for path, tensor in values.items():
                places[path] = file, end
                end += _write(descriptor, tensor)
        except BaseException:
            release([file])
            raise
        finally:
            os.close(descriptor)
        return places

    def _new_folder(self) -> Path:
        folder = self._above / f".tmp-rankscope-monitor-{own_mark()}-{next(_numbers)}"
        folder.mkdir(mode=0o700)
        return folder


def release(files: Iterable[str]) -> None:
    """Remove copies that nothing needs any more."""
    for file in files:
        # On Windows, one that is still read stays until the folder goes.
        with contextlib.suppress(FileNotFoundError, PermissionError):
            os.unlink(file)  # noqa: PTH108, a path would cost more than this


def _now(stored: StoredTensor, sources: Mapping[str, Source]) -> Tensor | None:
    """The tensor as it is now; None for a gradient that is not there."""
    source = sources[stored.path]
    is_gradient = stored.path.startswith(GRADIENT)
    tensor = source.gradient() if is_gradient else source.tensor()
    if tensor is None and is_gradient:
        return None
    if tensor is None or tensor.is_sparse or tuple(tensor.shape) != stored.shape:
        raise NotAsPlanned(stored.name)
    if dtype_of(tensor) != stored.dtype:
        raise NotAsPlanned(stored.name)
    return tensor


def _write(descriptor: int, tensor: Tensor) -> int:
    """Write the elements in row-major order, and return their bytes.

    A tensor on a device comes to the processor first.
    """
    import torch

    flat = tensor.detach().to("cpu").contiguous().reshape(-1)
    rest = flat.view(torch.uint8).numpy().data
    while len(rest):
        rest = rest[os.write(descriptor, rest) :]
    return flat.nbytes
