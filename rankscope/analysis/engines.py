"""Engines by name: processes on this machine, a Dask cluster, or a GPU."""

from __future__ import annotations

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


def engine_of(name: EngineName, jobs: int | None = None, *, start: bool = False) -> OpenEngine:
    """Return the engine of this name, not yet entered.

    Parameters
    ----------
    name
        ``local``: worker processes; ``cuda``: the GPU that torch finds, or worker processes and a
        `RankscopeWarning` where it finds none; ``dask``: the cluster of Dask's configuration.
    jobs
        Number of workers; the number of processors by default.
    start
        Start worker processes now rather than with the first job, so that they load numpy while the
        caller plans.

    Raises
    ------
    WrongSettingError
        If there is no engine of this name.
    RankscopeError
        If the engine needs a package that is not installed.
    """
    if name not in ENGINES:
        known = ", ".join(get_args(EngineName))
        raise WrongSettingError(f"unknown `engine` {name!r}: choose from {known}")
    return ENGINES[name](jobs or processors(), start)


def processors() -> int:
    """Number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _local(jobs: int, start: bool) -> LocalWorkers:
    from rankscope.analysis.local_workers import LocalWorkers

    # The workers compute; more threads in this process would only spin while they do. This has no
    # effect where numpy is loaded already.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    workers = LocalWorkers(jobs)
    if start:
        workers.start()
    return workers


def _dask(jobs: int, start: bool) -> OpenEngine:
    from rankscope.analysis.dask_workers import DaskWorkers

    return DaskWorkers(jobs)


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
    "dask": _dask,
}
