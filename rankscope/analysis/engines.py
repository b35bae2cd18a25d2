"""Engines by name: processes on this machine, a Dask cluster, or a GPU."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from rankscope.analysis.jobs import AnalysisEngine
from rankscope.errors import RankscopeError, RankscopeWarning, WrongSettingError

if TYPE_CHECKING:
    from rankscope.analysis.local_workers import LocalWorkers

EngineName: TypeAlias = Literal["local", "cuda", "dask"]
OpenEngine: TypeAlias = AbstractContextManager[AnalysisEngine]


def engine_of(
    name: EngineName,
    jobs: int | None = None,
    *,
    start: bool = False,
    scheduler: str | None = None,
    wait: float | None = None,
) -> OpenEngine:
    """Return the engine of this name, not yet entered.

    Parameters
    ----------
    name
        ``local``: worker processes; ``cuda``: the GPU that torch finds, or worker processes and a
        `RankscopeWarning` where it finds none; ``dask``: the cluster of ``scheduler``, or of Dask's
        configuration, or else one on this machine.
    jobs
        Number of workers; the number of processors by default.
    start
        Start worker processes now rather than with the first job, for a caller that has loaded
        nothing else yet: they are copies of it then, and load nothing again.
    scheduler, wait
        Address of the scheduler of Dask, and for how many minutes its cluster may be without a
        worker, 10 by default.

    Raises
    ------
    WrongSettingError
        If there is no engine of this name, or it has no such settings.
    RankscopeError
        If the engine needs a package that is not installed.
    """
    if name not in get_args(EngineName):
        known = ", ".join(get_args(EngineName))
        raise WrongSettingError(f"unknown `engine` {name!r}: choose from {known}")
    for setting, value in (("scheduler", scheduler), ("wait", wait)):
        if value is not None and name != "dask":
            raise WrongSettingError(f'`{setting}` is for a cluster: choose the `engine` "dask"')
    if wait is not None and not 0 <= wait < math.inf:
        raise WrongSettingError(f"`wait` is {wait}: give a number of minutes, 0 or more")
    if name == "dask":
        return _dask(jobs or processors(), scheduler, wait)
    return ENGINES[name](jobs or processors(), start)


def processors() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _local(jobs: int, start: bool) -> LocalWorkers:
    from rankscope.analysis.copied_process import ONE_THREAD
    from rankscope.analysis.local_workers import LocalWorkers

    # The workers compute; more threads in this process would only spin while they do. A command
    # line's can then be copied; a caller's may have other work for the other threads. This has no
    # effect where numpy is loaded already.
    for name in ONE_THREAD if start else ("OPENBLAS_NUM_THREADS",):
        os.environ.setdefault(name, "1")
    workers = LocalWorkers(jobs)
    if start:
        workers.start()
    return workers


def _dask(jobs: int, scheduler: str | None, wait: float | None) -> OpenEngine:
    from rankscope.analysis.dask_workers import WAIT, DaskWorkers

    return DaskWorkers(jobs, scheduler=scheduler, wait=WAIT if wait is None else wait)


def _cuda(jobs: int, start: bool) -> OpenEngine:
    try:
        from rankscope.spectra.torch_backend import has_gpu
    except ModuleNotFoundError:
        raise RankscopeError(
            '`engine` "cuda" needs torch: pip install "rankscope[torch]"'
        ) from None
    if not has_gpu():
        message = "torch finds no GPU: worker processes are used instead"
        warnings.warn(message, RankscopeWarning, stacklevel=3)
        return _local(jobs, start)
    from rankscope.analysis.device_engine import DeviceEngine
    from rankscope.analysis.device_worker import DeviceWorker

    workers = _local(jobs, start)
    return DeviceEngine(DeviceWorker("cuda", jobs), workers, jobs)


ENGINES: Mapping[str, Callable[[int, bool], OpenEngine]] = {
    "local": _local,
    "cuda": _cuda,
}
