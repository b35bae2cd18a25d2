"""The device engine: matrices are read by threads of this process and decomposed on a GPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from types import TracebackType

from rankscope.analysis.jobs import Failure, Job, Outcome
from rankscope.analysis.worker import explained
from rankscope.spectra.matrices import Decomposable, Dense
from rankscope.spectra.singular_values import spectra, stack_spectra
from rankscope.spectra.torch_backend import TorchBackend

READ_AHEAD = 8  # matrices that threads hold ready; they are as large as the model's

Read = Decomposable | Failure


class DeviceWorker:
    """One device for all matrices; products are so small that the processor takes them.

    Parameters
    ----------
    device
        A device of torch, such as ``cuda``.
    jobs
        Number of threads that read.
    """

    def __init__(self, device: str, jobs: int) -> None:
        self._backend = TorchBackend(device)
        self._readers = ThreadPoolExecutor(jobs)

    def __enter__(self) -> DeviceWorker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._readers.shutdown(wait=False, cancel_futures=True)

    def run(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Decompose every job's recipe; dense matrices of one shape in a row go together."""
        batch: list[tuple[Job, Dense]] = []
        for job, matrix in self._read(jobs):
            if batch and not (isinstance(matrix, Dense) and matrix.shape == batch[0][1].shape):
                yield from self._decomposed(batch)
                batch = []
            if isinstance(matrix, Failure):
                yield job, matrix
            elif not isinstance(matrix, Dense):
                yield job, spectra(matrix)
            else:
                batch.append((job, matrix))
                if len(batch) >= self._backend.batch_size(matrix.shape):
                    yield from self._decomposed(batch)
                    batch = []
        if batch:
            yield from self._decomposed(batch)

    def _read(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Read]]:
        """Jobs in their order with what was read for them."""
        waiting = iter(jobs)
        ahead: deque[tuple[Job, Future[Read]]] = deque()
        while True:
            for job in islice(waiting, READ_AHEAD - len(ahead)):
                ahead.append((job, self._readers.submit(_matrix_of, job)))
            if not ahead:
                return
            job, read = ahead.popleft()
            yield job, read.result()

    def _decomposed(self, batch: list[tuple[Job, Dense]]) -> Iterator[tuple[Job, Outcome]]:
        found = stack_spectra([matrix for _, matrix in batch], self._backend)
        for (job, _), spectrum in zip(batch, found, strict=True):
            yield job, [spectrum]


def _matrix_of(job: Job) -> Read:
    try:
        return job.task.component.recipe.read()
    except Exception as error:
        return explained(error)
