"""The engine of a GPU: large matrices go to the device, everything else to worker processes.

Drivers solve eigenproblems of more than 32 rows one by one, and take longer for a small one than a
few processors. On an H200 it takes 9 µs for each row of the Gram matrix, and on one processor
0.11 ns times the cube of the rows: from about 290·√(number of workers) rows on, the device is
faster than all workers together (benchmarks/README.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from types import TracebackType

from rankscope.analysis.device_worker import DeviceWorker, plain_states
from rankscope.analysis.jobs import AnalysisJob, Outcome
from rankscope.analysis.local_workers import LocalWorkers

ROWS_OF_ONE = 290  # short side from which the device is faster than one worker
ON_DEVICE = 32  # matrices that are handed to the device at a time


class DeviceEngine:
    """A device and worker processes, for a ``with`` block.

    Parameters
    ----------
    device
        The device worker, which is entered here.
    workers
        Worker processes, likewise.
    jobs
        Number of worker processes.
    """

    def __init__(self, device: DeviceWorker, workers: LocalWorkers, jobs: int) -> None:
        self._device, self._workers = device, workers
        self._least = ROWS_OF_ONE * jobs**0.5
        self._started: dict[Future[Outcome], AnalysisJob] = {}
        self._has_more = False

    def __enter__(self) -> DeviceEngine:
        self._workers.__enter__()
        self._device.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._device.__exit__(kind, error, trace)
        self._workers.__exit__(kind, error, trace)

    def run(self, jobs: Iterable[AnalysisJob]) -> Iterator[tuple[AnalysisJob, Outcome]]:
        """Decompose every job's recipe; results come as they are ready, in any order."""
        waiting = iter(jobs)
        self._has_more = True
        while self._has_more or self._started:
            for done in self._workers.run(self._for_workers(waiting)):
                yield done
                yield from self._finished(seconds=0)
            yield from self._finished(seconds=None)

    def _for_workers(self, waiting: Iterator[AnalysisJob]) -> Iterator[AnalysisJob]:
        """Start the jobs for the device and yield the others, until the device has enough."""
        for job in waiting:
            states = plain_states(job.task.recipe)
            side = min(states[0].shape) if states else 0
            if side < self._least:
                yield job
                continue
            self._started[self._device.submit(job)] = job
            if sum(not future.done() for future in self._started) >= ON_DEVICE:
                return
        self._has_more = False

    def _finished(self, *, seconds: float | None) -> Iterator[tuple[AnalysisJob, Outcome]]:
        """Results that the device has; waits this long for the first one, or forever if None."""
        for future in wait(self._started, seconds, FIRST_COMPLETED).done:
            yield self._started.pop(future), future.result()
