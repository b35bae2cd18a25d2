"""The Dask engine: recipes are decomposed by the workers of a cluster.

The workers must see the checkpoints under the same paths, and have the same version of rankscope.
If one of them fails, that is reported once, with its host, and its work goes to the others.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError
from itertools import chain
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any

from rankscope.analysis.dask_cluster import LOOK, DaskCluster, warn
from rankscope.analysis.dask_task import Report, report, versions
from rankscope.analysis.jobs import AnalysisJob, Outcome, in_chunks, sent
from rankscope.pipeline.engine import Failure

AHEAD = 2  # chunks in flight per thread of the cluster
FETCH = 10.0  # seconds in which a result must come; else it is asked for again
WAIT = 10.0  # minutes
Jobs = list[AnalysisJob]


class DaskWorkers:
    """The workers of a Dask cluster, for a ``with`` block.

    Parameters
    ----------
    jobs
        Number of workers, where they are started on this machine.
    scheduler
        Address of the scheduler; by default that of Dask's configuration.
    wait
        Minutes to wait while the cluster has no worker; after that, the remaining jobs have failed.
    """

    def __init__(self, jobs: int, *, scheduler: str | None = None, wait: float = WAIT) -> None:
        self._jobs, self._scheduler, self._wait = jobs, scheduler, wait
        self._cluster: DaskCluster | None = None
        self._end: Failure | None = None  # why nothing more can be done
        self._blind: dict[str, Failure] = {}  # workers that do not see a file, by address
        self._said: set[str] = set()
        self._failures: Counter[str] = Counter()

    def __enter__(self) -> DaskWorkers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._cluster is not None:
            self._cluster.close()

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
        if self._cluster is None:
            self._cluster = DaskCluster(self._scheduler, self._jobs)
        chunks = chain([first], chunks)
        in_flight: dict[Any, Jobs] = {}
        yield from self._carried_out(self._cluster, chunks, in_flight)
        if self._end is not None:
            for chunk in chain(in_flight.values(), chunks):
                yield from ((job, self._end) for job in chunk)
        if self._failures and self._cluster.address:
            counts = ", ".join(f"{host} {n}" for host, n in self._failures.most_common())
            warn(f"failures by host of the Dask cluster: {counts}")
            self._failures.clear()

    def _carried_out(
        self, cluster: DaskCluster, chunks: Iterator[Jobs], in_flight: dict[Any, Jobs]
    ) -> Iterator[tuple[AnalysisJob, Outcome]]:
        """Results, until there are no more chunks or nothing more can be done."""
        finished, again = SimpleQueue[Any](), deque[Jobs]()
        while self._can_go_on(cluster):
            while len(in_flight) < AHEAD * max(sum(cluster.threads.values()), 1):
                chunk = again.popleft() if again else next(chunks, None)
                if chunk is None:
                    break
                future = self._submit(cluster, chunk)
                in_flight[future] = chunk
                future.add_done_callback(finished.put)
            if not in_flight:
                return
            try:
                future = finished.get(timeout=LOOK)
            except Empty:
                continue
            chunk = in_flight[future]
            try:
                outcomes = self._outcomes(cluster, future, len(chunk))
            except TimeoutError:  # its worker died before it was fetched: it is computed again
                future.add_done_callback(finished.put)
                continue
            except CancelledError:
                self._end = _scheduler_lost(cluster)
                return
            del in_flight[future]
            if outcomes is None:
                again.append(chunk)
            else:
                yield from zip(chunk, outcomes, strict=True)

    def _can_go_on(self, cluster: DaskCluster) -> bool:
        """Whether there is a worker, or one may still come."""
        if self._end is not None:
            return False
        try:
            alone = cluster.look()
        except OSError:
            self._end = _scheduler_lost(cluster)
            return False
        if cluster.threads:
            self._said.discard("alone")
        else:
            self._say_once(
                "alone",
                f"the Dask cluster at {cluster.address} has no worker: waiting for one, "
                f"{self._wait:g} minutes at most (`wait`)",
            )
        if alone > 60 * self._wait:
            message = f"the Dask cluster had no worker for {self._wait:g} minutes"
            self._end = Failure("no-worker", message)
        return self._end is None

    def _submit(self, cluster: DaskCluster, chunk: Jobs) -> Any:
        others = [one for one in cluster.threads if one not in self._blind] if self._blind else []
        # Not pure: a retry must not get the failed result from Dask's memory.
        return cluster.client.submit(
            report, list(map(sent, chunk)), pure=False, workers=others or None
        )

    def _outcomes(self, cluster: DaskCluster, future: Any, count: int) -> list[Outcome] | None:
        """Results of a chunk; None if another worker has to try.

        Raises
        ------
        TimeoutError
            If they never come because they no longer exist.
        CancelledError
            If the scheduler is gone.
        """
        error = future.exception(timeout=FETCH)
        if error is not None:
            failure, host = _failed(error)
            self._failures[host] += count
            return [failure] * count
        found: Report = future.result(timeout=FETCH)
        outcomes = found.outcomes
        other = self._other_version(found)
        if other is not None:
            outcomes = [other] * count
        elif found.lacks:
            blind = self._seen_here(found)
            if blind is not None:
                if any(one not in self._blind for one in cluster.threads):
                    self._say_once(found.host, f"{blind.path}: {blind.message}")
                    return None
                outcomes = [blind] * count
        self._failures[found.host] += sum(isinstance(one, Failure) for one in outcomes)
        self._failures = +self._failures
        return outcomes

    def _seen_here(self, found: Report) -> Failure | None:
        """What to say about a worker that lacks a file; None if the file is gone here too."""
        if not Path(found.lacks).exists():
            return None
        alike = (one for one in self._blind.values() if found.host in one.message)
        failure = next(alike, None) or Failure(
            "not-on-worker",
            f"the Dask worker on {found.host} does not see this file: mount it under the same path",
            found.lacks,
        )
        return self._blind.setdefault(found.address, failure)

    def _other_version(self, found: Report) -> Failure | None:
        """Why a worker's numbers are not accepted; with another numpy they are, with a warning."""
        here, there = versions(), found.versions
        if there["rankscope"] != here["rankscope"]:
            message = (
                f"the Dask worker on {found.host} has rankscope {there['rankscope']}, not "
                f"{here['rankscope']} as here: install the same"
            )
            return Failure("other-version", message)
        if there["numpy"] != here["numpy"]:
            self._say_once(
                f"numpy on {found.host}",
                f"the Dask worker on {found.host} has numpy {there['numpy']}, not "
                f"{here['numpy']} as here: its last bits may differ",
            )
        return None

    def _say_once(self, about: str, message: str) -> None:
        if about not in self._said:
            self._said.add(about)
            warn(message)


def _failed(error: Any) -> tuple[Failure, str]:
    """Why a chunk has no results, and the host where it was tried last."""
    why = f"{type(error).__name__}: {error}".splitlines()[0]
    if isinstance(error, ImportError):
        message = f"a Dask worker cannot load what it should ({why}): install the same rankscope"
        return Failure("other-version", message), "unknown host"
    worker = getattr(error, "last_worker", None)
    return Failure("worker-died", why), getattr(worker, "host", None) or "unknown host"


def _scheduler_lost(cluster: DaskCluster) -> Failure:
    message = f"the connection to the Dask scheduler at {cluster.address} was lost"
    return Failure("no-scheduler", message)
