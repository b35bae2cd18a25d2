"""A device worker: threads of this process read matrices, a GPU decomposes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from types import TracebackType

import torch
from torch import Tensor

from rankscope.analysis.jobs import AnalysisJob, Outcome, sent
from rankscope.analysis.subspace_series import SubspaceSeries
from rankscope.analysis.worker import decompose, explained, matrix_of
from rankscope.checkpoints.file_states import as_planned
from rankscope.checkpoints.tensors import StoredTensor
from rankscope.components.consecutive import Consecutive
from rankscope.components.memory import check_room
from rankscope.components.recipes import Difference, Recipe, Weight
from rankscope.errors import RankscopeError
from rankscope.results.measured import Measured
from rankscope.spectra.device_changes import State, change_of
from rankscope.spectra.device_matrices import TYPES, stored
from rankscope.spectra.matrices import Dense
from rankscope.spectra.singular_values import spectra, stack_spectra
from rankscope.spectra.spectrum import Spectrum
from rankscope.spectra.torch_backend import TorchBackend

READ_AHEAD = 4  # matrices in memory beyond those of the threads, each as large as in the model


@dataclass(frozen=True)
class States:
    """Stored matrices as their files hold them, in memory that the device can copy.

    One is a weight; two are a change, last first; three are a change and the one before it.
    """

    data: list[tuple[Tensor, StoredTensor]]  # bytes, and what they are
    dtype: str


def plain_states(recipe: Recipe | SubspaceSeries) -> tuple[StoredTensor, ...]:
    """The stored matrices that a recipe needs if it needs nothing else; else nothing."""
    return recipe.states if isinstance(recipe, (Weight, Difference, Consecutive)) else ()


class DeviceWorker:
    """One device for all matrices; products are small enough for the processor.

    Plain weights, and the changes between them, go to the device as their files hold them. Anything
    else is formed by the threads that read.

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
        return self._together([(job, found)])[0][1] if isinstance(found, Dense) else found

    def _decomposed(self, job: AnalysisJob) -> Outcome | Dense:
        """The result of a job; a small matrix as it was read, to be decomposed with others."""
        found = self._found(job)
        # Others may use the device: what has no room there is decomposed on the processor.
        return decompose(*sent(job)) if found is None else found

    def _found(self, job: AnalysisJob) -> Outcome | Dense | None:
        try:
            recipe = job.task.recipe
            with as_planned(job.task.files):
                if isinstance(recipe, SubspaceSeries):  # vectors are found on the processor
                    return recipe.compare()
                matrix = self._states_of(recipe) or matrix_of(recipe)
            if not isinstance(matrix, (States, Dense)):
                return _measured(job, spectra(matrix))
            if isinstance(matrix, Dense) and self._backend.batch_size(matrix.shape) > 1:
                return matrix
            return self._on_device(job, matrix)
        except torch.OutOfMemoryError:
            return None
        except Exception as error:
            return explained(error)

    def _states_of(self, recipe: Recipe) -> States | None:
        """What goes to the device as it is stored; None for what the processor forms or refuses."""
        states = plain_states(recipe)
        if not states or not all(one.nbytes and one.dtype in TYPES for one in states):
            return None
        rows, columns = states[0].shape
        if self._backend.batch_size((rows, columns)) > 1:
            return None
        check_room(recipe)
        data = [(self._backend.buffer(one.nbytes), one) for one in states]
        try:
            for buffer, one in data:
                one.read_bytes(buffer.numpy())
        except RankscopeError:  # the processor knows which of them it can do without
            return None
        dtypes = dict.fromkeys(one.dtype for one in states[:2])
        return States(data, "-".join(dtypes))

    def _on_device(self, job: AnalysisJob, matrix: States | Dense) -> Outcome:
        with self._backend.place():
            if isinstance(matrix, States):
                matrix = self._formed(matrix)
            return _measured(job, stack_spectra([matrix], self._backend))

    def _formed(self, states: States) -> Dense:
        there = [
            (data.to(self._backend.device, non_blocking=True), one) for data, one in states.data
        ]
        tensors = [(data.view(TYPES[one.dtype]).view(one.shape), one.dtype) for data, one in there]
        if len(tensors) == 1:
            return stored(*tensors[0])
        return change_of([State.stored(*one) for one in tensors], states.dtype)

    def _together(
        self, batch: Sequence[tuple[AnalysisJob, Dense]]
    ) -> list[tuple[AnalysisJob, Outcome]]:
        """Small matrices of one shape; on the processor if the device has no room for them."""
        matrices = [matrix for _, matrix in batch]
        try:
            with self._backend.place():
                found = stack_spectra(matrices, self._backend)
        except torch.OutOfMemoryError:
            found = stack_spectra(matrices)
        jobs = [job for job, _ in batch]
        return [(job, _measured(job, [one])) for job, one in zip(jobs, found, strict=True)]


def _measured(job: AnalysisJob, found: list[Spectrum]) -> list[Measured]:
    return [Measured.of(spectrum, job.task.component.kind) for spectrum in found]
