"""One worker process: takes recipes from its connection, sends back spectra and metrics.

It is started as a separate program rather than by ``multiprocessing``, which would import the
caller's main script again. So a script without a ``__main__`` guard works, and so does a notebook;
numpy loads with one thread; and a parent that is killed leaves no orphan: the connection ends.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from typing_extensions import TypeIs

from rankscope.addresses import is_stand_in
from rankscope.analysis.jobs import Outcome
from rankscope.checkpoints.file_states import FileStates, as_planned
from rankscope.checkpoints.tensors import StoredTensor
from rankscope.components.memory import check_room
from rankscope.components.recipes import Recipe
from rankscope.errors import RankscopeError
from rankscope.pipeline.engine import Failure
from rankscope.results.measured import Measured
from rankscope.spectra.entries import sparsity
from rankscope.spectra.matrices import Decomposable, Dense
from rankscope.spectra.singular_values import spectra

if TYPE_CHECKING:
    from rankscope.analysis.subspace_series import SubspaceSeries

Chunk: TypeAlias = "list[tuple[Recipe | SubspaceSeries, FileStates, str]]"  # as `jobs.sent`
AHEAD = 2**26  # bytes of a chunk that are fetched before its first matrix is read
SECONDS_TO_END = 1.0  # until then an idle process has ended by itself, and waited for the others


def decompose(
    recipe: Recipe | SubspaceSeries, files: FileStates = (), component: str = "weight"
) -> Outcome:
    """Spectra of a recipe with metrics, one per head for a stack; or comparisons of a series.

    Refuses ``files`` in any other state than this.
    """
    try:
        with as_planned(files):
            if _is_series(recipe):
                return recipe.compare()
            matrix = in_float64(matrix_of(recipe))
        return [Measured.of(spectrum, component) for spectrum in spectra(matrix)]
    except Exception as error:
        return explained(error)


def _is_series(recipe: Recipe | SubspaceSeries) -> TypeIs[SubspaceSeries]:
    """Whether singular subspaces are compared, for which most calls need not load the means."""
    return hasattr(recipe, "compare")


def matrix_of(recipe: Recipe) -> Decomposable:
    """Read a matrix; if it is in memory as a whole, also measure its entries."""
    check_room(recipe)
    matrix = recipe.read()
    if not isinstance(matrix, Dense):
        return matrix
    return replace(matrix, entries=sparsity(matrix.values, matrix.error))


def in_float64(matrix: Decomposable) -> Decomposable:
    """The matrix in float64; its narrower copy may be freed while it is decomposed."""
    if not isinstance(matrix, Dense):
        return matrix
    values = np.asarray(matrix.values, np.float64)
    was_narrower = matrix.values.itemsize < values.itemsize
    return replace(matrix, values=values, is_ordinary=was_narrower)


def explained(error: Exception) -> Failure:
    """Why a recipe failed; an error that is a bug is raised again."""
    if isinstance(error, RankscopeError):
        return Failure(error.reason, error.message, error.path or "", error.tensor or "")
    if isinstance(error, MemoryError):
        return Failure("too-large", str(error) or "memory ran out")
    if isinstance(error, OverflowError):  # a scale in a config, say, of 1e308
        return Failure("overflow", "its numbers are too large for floating-point arithmetic")
    if isinstance(error, np.linalg.LinAlgError):
        return Failure("decomposition-failed", str(error))
    raise error


def decompose_all(chunk: Chunk) -> list[Outcome]:
    """The results or failures of a chunk of recipes."""
    _fetch_ahead(chunk)
    return [decompose(*one) for one in chunk]


def _fetch_ahead(chunk: Chunk) -> None:
    """Fetch the remote parts of a chunk's matrices together, up to `AHEAD` bytes."""
    ranges: dict[str, list[tuple[int, int]]] = {}
    size = 0
    for recipe, *_ in chunk:
        for tensor in () if _is_series(recipe) else recipe.tensors():
            if isinstance(tensor, StoredTensor) and is_stand_in(tensor.path):
                size += tensor.nbytes
                if size <= AHEAD:
                    stop = tensor.offset + tensor.nbytes
                    ranges.setdefault(tensor.path, []).append((tensor.offset, stop))
    if ranges:
        from rankscope.checkpoints.remote.opening import fetch_ahead  # it loads the web

        fetch_ahead(ranges)


def serve(descriptors: list[int]) -> None:
    """Answer chunks of recipes until the connections with these file descriptors end.

    There is one process per connection, forked here, where everything is loaded and no thread runs.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt ends
    while len(descriptors) > 1:
        own = descriptors.pop()
        if os.fork():
            os.close(own)
        else:
            for other in descriptors:  # kept open here, they would hide that their owner died
                os.close(other)
            descriptors = [own]
    _answer(Connection(descriptors[0]))
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    os._exit(0)  # nothing is left to do, and shutting Python down takes time


def serve_shared() -> None:
    """Answer chunks from the connection that the caller describes on standard input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    shared = socket.fromshare(sys.stdin.buffer.read())  # type: ignore[attr-defined,unused-ignore]
    _answer(Connection(shared.detach()))
    os._exit(0)


def _answer(connection: Connection) -> None:
    chunks: SimpleQueue[Chunk | None] = SimpleQueue()
    threading.Thread(target=_receive, args=[connection, chunks], daemon=True).start()
    while (chunk := chunks.get()) is not None:
        outcomes = decompose_all(chunk)
        try:
            connection.send(outcomes)
        except OSError:  # the parent process has been killed
            return


def _receive(connection: Connection, chunks: SimpleQueue[Chunk | None]) -> None:
    """Take in chunks as they come, and end this process soon after its caller.

    A caller that hands over a chunk must not have to wait until the results of another are fetched,
    since it is the caller that fetches them. Linear algebra does not hold Python's lock, so this
    thread is not held up by a decomposition, even one that would take minutes more.
    """
    try:
        while True:
            chunks.put(connection.recv())
    except (EOFError, OSError):
        pass
    finally:
        chunks.put(None)
        time.sleep(SECONDS_TO_END)
        os._exit(0)
