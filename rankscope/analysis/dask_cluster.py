"""A Dask cluster as a client sees it: its scheduler, and which workers it has."""

from __future__ import annotations

import logging
import time
import warnings
from typing import Any

from rankscope.errors import RankscopeError, RankscopeWarning, printable

LOOK = 2.0  # seconds between two looks at the workers
CONNECT = 10.0  # seconds to wait for the scheduler, at most


class DaskCluster:
    """The workers of a scheduler, or of this machine.

    Parameters
    ----------
    scheduler
        Its address; by default that of Dask's configuration, and if there is none, worker processes
        are started here.
    jobs
        How many.

    Raises
    ------
    RankscopeError
        If Dask is not installed, or the scheduler cannot be reached.
    """

    def __init__(self, scheduler: str | None, jobs: int) -> None:
        try:
            import dask
            from dask.distributed import Client
        except ModuleNotFoundError:
            message = '`engine` "dask" needs Dask: pip install "rankscope[dask]"'
            raise RankscopeError(message) from None
        self.address = scheduler or dask.config.get("scheduler-address", None)
        if self.address:
            self.client = _connected(Client, str(self.address))
        else:
            self.client = Client(n_workers=jobs, threads_per_worker=1, dashboard_address=":0")
        # That the scheduler is gone is said in one line; Dask would log a traceback.
        self._log = logging.getLogger("distributed.client")
        self._level = self._log.level
        self._log.setLevel(logging.CRITICAL)
        self.threads: dict[str, int] = {}  # of each worker, by its address
        self._looked = -LOOK
        self._alone_since: float | None = None

    def close(self) -> None:
        """Close the connection, and end the workers that were started here, but no others."""
        self.client.close()
        self._log.setLevel(self._level)

    def look(self) -> float:
        """Look up the workers if they are not known; returns for how long there has been none.

        Raises
        ------
        OSError
            If the scheduler is gone.
        """
        now = time.monotonic()
        if now - self._looked >= LOOK:
            self.threads = dict(self.client.nthreads())
            self._looked = now
        if self.threads:
            self._alone_since = None
        elif self._alone_since is None:
            self._alone_since = now
        return 0.0 if self._alone_since is None else now - self._alone_since


def _connected(client: Any, address: str) -> Any:
    from dask import config
    from dask.utils import parse_timedelta

    stated = parse_timedelta(config.get("distributed.comm.timeouts.connect", CONNECT))
    try:
        return client(address, timeout=min(stated, CONNECT))
    except (OSError, ValueError, TypeError, RuntimeError, ImportError) as error:
        why = printable(f"{error}")
        raise RankscopeError(
            f"the Dask scheduler cannot be reached at {printable(address)}: {why}"
        ) from None


def warn(message: str) -> None:
    """Say something about the cluster while the work goes on."""
    warnings.warn(RankscopeWarning(message), stacklevel=3)
