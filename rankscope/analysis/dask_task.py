"""What a worker of a Dask cluster does with a chunk of recipes, and what it says of itself."""

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
    """What came of a chunk, and where.

    Attributes
    ----------
    address, host
        Of the worker.
    versions
        Of the packages on which its numbers depend.
    lacks
        A file that was there when the work was planned, and is not there for this worker; empty if
        it sees all.
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
    """The first planned file that is not there; empty if all are."""
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
