"""The device engine: threads of this process read matrices, a GPU decomposes them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from types import TracebackType

from rankscope.analysis.jobs import AnalysisJob, Outcome
from rankscope.analysis.subspace_series import Compared, SubspaceSeries
from rankscope.analysis.worker import explained, matrix_of
from rankscope.checkpoints.file_states import as_planned
from rankscope.pipeline.engine import Failure
from rankscope.results.measure import Measured
from rankscope.spectra.matrices import Decomposable, Dense
from rankscope.spectra.singular_values import spectra, stack_spectra
from rankscope.spectra.spectrum import Spectrum
from rankscope.spectra.torch_backend import TorchBackend

READ_AHEAD = 8  # matrices held ready, each as large as in the model

Read = Decomposable | Failure | list[Compared]


class DeviceWorker:
    """One device for all matrices; products are small enough for the processor.

    Parameters
    ----------
    device
        A torch device, such as ``cuda``.
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

    def run(self, jobs: Iterable[AnalysisJob]) -> Iterator[tuple[AnalysisJob, Outcome]]:
        """Decompose every job's recipe; consecutive dense matrices of one shape go together."""
        batch: list[tuple[AnalysisJob, Dense]] = []
        for job, matrix in self._read(jobs):
            if batch and not (isinstance(matrix, Dense) and matrix.shape == batch[0][1].shape):
                yield from self._decomposed(batch)
                batch = []
            if isinstance(matrix, Failure | list):
                yield job, matrix
            elif not isinstance(matrix, Dense):
                yield job, _measured(job, spectra(matrix))
            else:
                batch.append((job, matrix))
                if len(batch) >= self._backend.batch_size(matrix.shape):
                    yield from self._decomposed(batch)
                    batch = []
        if batch:
            yield from self._decomposed(batch)

    def _read(self, jobs: Iterable[AnalysisJob]) -> Iterator[tuple[AnalysisJob, Read]]:
        """Jobs in their order, each with its matrix."""
        waiting = iter(jobs)
        ahead: deque[tuple[AnalysisJob, Future[Read]]] = deque()
        while True:
            for job in islice(waiting, READ_AHEAD - len(ahead)):
                ahead.append((job, self._readers.submit(_matrix_of, job)))
            if not ahead:
                return
            job, read = ahead.popleft()
            yield job, read.result()

    def _decomposed(
        self, batch: list[tuple[AnalysisJob, Dense]]
    ) -> Iterator[tuple[AnalysisJob, Outcome]]:
        found = stack_spectra([matrix for _, matrix in batch], self._backend)
        for (job, _), spectrum in zip(batch, found, strict=True):
            yield job, _measured(job, [spectrum])


def _measured(job: AnalysisJob, found: list[Spectrum]) -> list[Measured]:
    return [Measured.of(spectrum, job.task.component.kind) for spectrum in found]


def _matrix_of(job: AnalysisJob) -> Read:
    try:
        recipe = job.task.recipe
        # Singular vectors are found on the processor, by these threads.
        with as_planned(job.task.files):
            return recipe.compare() if isinstance(recipe, SubspaceSeries) else matrix_of(recipe)
    except Exception as error:
        return explained(error)
