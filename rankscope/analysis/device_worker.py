"""A device worker: threads of this process read matrices, a GPU decomposes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from types import TracebackType

import torch
from torch import Tensor

from rankscope.analysis.jobs import AnalysisJob, Outcome
from rankscope.analysis.subspace_series import SubspaceSeries
from rankscope.analysis.worker import decompose, explained, matrix_of
from rankscope.checkpoints.file_states import as_planned
from rankscope.checkpoints.tensors import StoredTensor, check_floats
from rankscope.components.memory import check_room
from rankscope.components.recipes import Weight
from rankscope.spectra.device_matrices import TYPES, stored
from rankscope.spectra.matrices import Dense
from rankscope.spectra.singular_values import spectra, stack_spectra
from rankscope.spectra.torch_backend import TorchBackend

READ_AHEAD = 4  # matrices in memory beyond those of the threads, each as large as in the model


@dataclass(frozen=True)
class Bytes:
    """A stored matrix as its file holds it."""

    data: Tensor  # (nbytes,), in memory that the device can copy
    dtype: str
    shape: tuple[int, ...]


class DeviceWorker:
    """One device for all matrices; products are small enough for the processor.

    A plain weight goes to the device as its file holds it. What is formed from several tensors is
    formed by the threads that read.

    Parameters
    ----------
    device
        A torch device, such as ``cuda``.
    jobs
        Number of threads that read.
    """

    def __init__(self, device: str, jobs: int) -> None:
        self._backend = TorchBackend(device)
        self._ahead = jobs + READ_AHEAD
        self._threads = ThreadPoolExecutor(jobs + READ_AHEAD)

    def __enter__(self) -> DeviceWorker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    def submit(self, job: AnalysisJob) -> Future[Outcome]:
        """Start a job, whatever its size."""
        return self._threads.submit(self._alone, job)

    def run(self, jobs: Iterable[AnalysisJob]) -> Iterator[tuple[AnalysisJob, Outcome]]:
        """Decompose every job's recipe; small matrices of one shape go together."""
        small: dict[tuple[int, int], list[tuple[AnalysisJob, Dense]]] = {}
        for job, found in self._in_order(jobs):
            if not isinstance(found, Dense):
                yield job, found
                continue
            batch = small.setdefault(found.shape, [])
            batch.append((job, found))
            if len(batch) >= self._backend.batch_size(found.shape):
                yield from self._together(small.pop(found.shape))
        for batch in small.values():
            yield from self._together(batch)

    def _in_order(
        self, jobs: Iterable[AnalysisJob]
    ) -> Iterator[tuple[AnalysisJob, Outcome | Dense]]:
        waiting = iter(jobs)
        started: deque[tuple[AnalysisJob, Future[Outcome | Dense]]] = deque()
        while True:
            for job in islice(waiting, self._ahead - len(started)):
                started.append((job, self._threads.submit(self._decomposed, job)))
            if not started:
                return
            job, future = started.popleft()
            yield job, future.result()

    def _alone(self, job: AnalysisJob) -> Outcome:
        found = self._decomposed(job)
        return self._on_device(found) if isinstance(found, Dense) else found

    def _decomposed(self, job: AnalysisJob) -> Outcome | Dense:
        """The result of a job; a small matrix as it was read, to be decomposed with others."""
        found = self._found(job)
        # Others may use the device: what has no room there is decomposed on the processor.
        return decompose(job.task.recipe, job.task.files) if found is None else found

    def _found(self, job: AnalysisJob) -> Outcome | Dense | None:
        try:
            recipe = job.task.recipe
            with as_planned(job.task.files):
                if isinstance(recipe, SubspaceSeries):  # vectors are found on the processor
                    return recipe.compare()
                plain = recipe.stored if isinstance(recipe, Weight) else None
                matrix = matrix_of(recipe) if plain is None else self._bytes_of(recipe, plain)
            if not isinstance(matrix, (Bytes, Dense)):
                return spectra(matrix)
            if isinstance(matrix, Dense) and self._backend.batch_size(matrix.shape) > 1:
                return matrix
            return self._on_device(matrix)
        except torch.OutOfMemoryError:
            return None
        except Exception as error:
            return explained(error)

    def _bytes_of(self, recipe: Weight, tensor: StoredTensor) -> Bytes | Dense:
        """A weight as it is stored; a small one as the processor reads it."""
        check_floats(tensor)
        rows, columns = tensor.shape
        if not tensor.nbytes or self._backend.batch_size((rows, columns)) > 1:
            return matrix_of(recipe)
        check_room(recipe)
        data = self._backend.buffer(tensor.nbytes)
        tensor.read_bytes(data.numpy())
        return Bytes(data, tensor.dtype, tensor.shape)

    def _on_device(self, matrix: Bytes | Dense) -> Outcome:
        with self._backend.place():
            if isinstance(matrix, Bytes):
                values = matrix.data.to(self._backend.device, non_blocking=True)
                matrix = stored(values.view(TYPES[matrix.dtype]).view(matrix.shape), matrix.dtype)
            return stack_spectra([matrix], self._backend)

    def _together(
        self, batch: list[tuple[AnalysisJob, Dense]]
    ) -> Iterator[tuple[AnalysisJob, Outcome]]:
        with self._backend.place():
            found = stack_spectra([matrix for _, matrix in batch], self._backend)
        for (job, _), spectrum in zip(batch, found, strict=True):
            yield job, [spectrum]
