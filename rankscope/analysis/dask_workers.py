"""The Dask engine: recipes are decomposed by the workers of a cluster.

The scheduler is the one that Dask's configuration names, such as ``DASK_SCHEDULER_ADDRESS``; where
none is configured, a cluster of processes on this machine is started. The workers must see the
checkpoints under the same paths.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from types import TracebackType
from typing import Any

from rankscope.analysis.jobs import AnalysisJob, Outcome, in_chunks, sent
from rankscope.analysis.worker import decompose_all
from rankscope.errors import RankscopeError
from rankscope.pipeline.engine import Failure

AHEAD = 2  # chunks in flight per thread of the cluster


class DaskWorkers:
    """The workers of a Dask cluster, for a ``with`` block."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._client: Any = None

    def __enter__(self) -> DaskWorkers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._client is not None:
            self._client.close()  # ends the local cluster too, but no other

    def run(self, jobs: Iterable[AnalysisJob]) -> Iterator[tuple[AnalysisJob, Outcome]]:
        """Decompose every job's recipe; results come as they are ready, in any order.

        Raises
        ------
        RankscopeError
            If Dask is not installed, or its scheduler cannot be reached.
        """
        chunks = in_chunks(jobs)
        first = next(chunks, None)
        if first is None:
            return
        self._client = _connected(self._jobs)
        from dask.distributed import as_completed

        room = AHEAD * max(sum(self._client.nthreads().values()), 1)
        in_flight = {self._submit(chunk): chunk for chunk in chain([first], islice(chunks, room))}
        finished = as_completed(in_flight)
        for future in finished:
            chunk = in_flight.pop(future)
            yield from zip(chunk, _outcomes(future, len(chunk)), strict=True)
            for more in islice(chunks, 1):
                added = self._submit(more)
                in_flight[added] = more
                finished.add(added)

    def _submit(self, chunk: list[AnalysisJob]) -> Any:
        # Not pure: a retry must not get the failed result from Dask's memory.
        return self._client.submit(decompose_all, list(map(sent, chunk)), pure=False)


def _outcomes(future: Any, count: int) -> list[Outcome]:
    """Results of a chunk; where its worker kept dying, Dask's KilledWorker for each job."""
    error = future.exception()
    if error is None:
        return list(future.result())
    return [Failure("worker-died", f"{type(error).__name__}: {error}".splitlines()[0])] * count


def _connected(jobs: int) -> Any:
    try:
        import dask
        from dask.distributed import Client
    except ModuleNotFoundError:
        raise RankscopeError('`engine` "dask" needs Dask: pip install "rankscope[dask]"') from None
    if dask.config.get("scheduler-address", None):
        try:
            return Client()
        except OSError as error:
            raise RankscopeError(f"the Dask scheduler cannot be reached: {error}") from None
    local = {"n_workers": jobs, "threads_per_worker": 1, "dashboard_address": None}
    return Client(**local)
