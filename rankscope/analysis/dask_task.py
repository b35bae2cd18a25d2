"""What a worker of a Dask cluster does with a chunk of recipes and reports about itself."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rankscope.analysis.jobs import Outcome
from rankscope.analysis.worker import Chunk, decompose_all

PACKAGES = ("rankscope", "numpy")


@dataclass(frozen=True)
class Report:
    """The results of a chunk, and the worker that they come from.

    Attributes
    ----------
    address, host
        Those of the worker.
    versions
        Versions of the packages on which its numbers depend.
    lacks
        A file that existed when the work was planned but that this worker does not see; empty if it
        sees them all.
    """

    outcomes: list[Outcome]
    address: str
    host: str
    versions: Mapping[str, str]
    lacks: str = ""


def report(chunk: Chunk) -> Report:
    """Decompose a chunk on a worker."""
    from distributed import get_worker

    lacks = lacking(chunk)
    outcomes = decompose_all(chunk)
    return Report(outcomes, get_worker().address, socket.gethostname(), versions(), lacks)


def lacking(chunk: Chunk) -> str:
    """The first planned file that does not exist here; empty if all do."""
    paths = (path for _, files, _ in chunk for path, state in files if state is not None)
    return next((path for path in paths if not Path(path).exists()), "")


@cache
def versions() -> Mapping[str, str]:
    """Versions of `PACKAGES` here."""
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # a source folder that is not installed
        return "unknown"
