"""Where shards keep what they compute, and how a plain call takes it over.

Each shard has a store of its own, ``shards/3-of-16`` in the results folder, which nobody else
writes: locks cannot be relied on where the machines of a cluster share a folder. A shard
reads the stores of all, so that nothing is computed twice whatever the number of shards was before.
A plain call puts the entries where it keeps its own, and only then removes the shard's file. Its
empty folder stays, since the shard may be about to write into it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic

from rankscope.analysis.shards import Shard
from rankscope.analysis.spectra_files import SpectraFiles
from rankscope.analysis.subspace_plans import SubspaceFiles
from rankscope.checkpoints.file_states import state_of
from rankscope.checkpoints.skip import Skip
from rankscope.errors import RankscopeError
from rankscope.pipeline.engine import Failure, ResultT, TaskT
from rankscope.pipeline.execution import EntryT, Plan, Store, recomputed
from rankscope.results.columns import SHARDS_FOLDER, SPECTRA_FOLDER, SUBSPACES_FOLDER

KINDS: Mapping[str, Callable[[Path], Store[Any, Any, Any]]] = {
    SPECTRA_FOLDER: SpectraFiles,
    SUBSPACES_FOLDER: SubspaceFiles,
}


class ShardStore(Generic[TaskT, ResultT, EntryT]):
    """The store that a shard writes, with what all the others hold.

    Parameters
    ----------
    store_of
        Makes a store of this kind in a folder.
    """

    def __init__(
        self, store_of: Callable[[Path], Store[TaskT, ResultT, EntryT]], out: Path, shard: Shard
    ) -> None:
        self._out, self._own = out, out / SHARDS_FOLDER / shard.folder
        self._store = store_of(self._own)

    def path(self, plan: Plan[TaskT]) -> Path:
        """File of a plan in the store of this shard."""
        return self._store.path(plan)

    def read(self, path: Path) -> list[EntryT]:
        """Entries of a file in all stores; a damaged file of another shard has none."""
        found = self._store.read(path)
        held = {entry.key for entry in found}
        for other in self._others(path):
            with suppress(RankscopeError):
                new = [entry for entry in self._store.read(other) if entry.key not in held]
                found += new
                held |= {entry.key for entry in new}
        return found

    def _others(self, path: Path) -> Iterator[Path]:
        """The same file in other stores, last in that of plain calls, which take over the rest."""
        name = path.relative_to(self._own)
        for folder in _folders(self._out):
            if folder != self._own:
                yield folder / name
        yield self._out / name

    def held_in(self, path: Path) -> set[str]:
        """Keys of the entries of a file in all stores."""
        with suppress(RankscopeError):
            return {entry.key for entry in self.read(path)}
        return set()

    def write(self, path: Path, stored: list[EntryT], new: list[EntryT]) -> None:
        """Add new entries to those of this shard; the stores of others do not change."""
        own: list[EntryT] = []
        with suppress(RankscopeError):
            own = self._store.read(path)
        self._store.write(path, own, new)

    def entries(self, task: TaskT, result: ResultT) -> list[EntryT]:
        """What is kept of a result."""
        return self._store.entries(task, result)

    def failed(self, task: TaskT, failure: Failure) -> tuple[list[EntryT], Skip]:
        """What represents a failure."""
        return self._store.failed(task, failure)

    def fault(self, task: TaskT, entry: EntryT) -> Skip | None:
        """Why an entry is not a measurement."""
        return self._store.fault(task, entry)


def gather(out: Path) -> tuple[Skip, ...]:
    """Put what shards have computed where a plain call keeps it; returns what was damaged."""
    damaged: list[Skip] = []
    parts: dict[Path, list[Path]] = {}
    for folder in _folders(out):
        for path in sorted(folder.rglob("*.safetensors")):
            parts.setdefault(path.relative_to(folder), []).append(path)
    for name, paths in parts.items():
        if name.parts[0] in KINDS:
            damaged += _merged(KINDS[name.parts[0]](out), out / name, paths)
    return tuple(damaged)


def _merged(store: Store[Any, Any, Any], target: Path, parts: list[Path]) -> list[Skip]:
    """Add the entries of some files to another, and remove the files."""
    damaged: list[Skip] = []

    def read(path: Path) -> list[Any]:
        try:
            return store.read(path)
        except RankscopeError as error:
            damaged.append(recomputed(error, path))
            return []

    states = {path: state_of(path) for path in parts}
    new: dict[str, list[Any]] = {}
    for path in parts:
        found: dict[str, list[Any]] = {}
        for entry in read(path):
            found.setdefault(entry.key, []).append(entry)
        new = found | new
    stored = read(target)
    held = {entry.key for entry in stored}
    added = [entry for key, alike in new.items() if key not in held for entry in alike]
    if added:
        store.write(target, stored, added)
    for path, state in states.items():
        if state_of(path) == state:  # else its shard has added to it
            path.unlink(missing_ok=True)
    return damaged


def _folders(out: Path) -> list[Path]:
    """The folders of all shards."""
    shards = out / SHARDS_FOLDER
    return sorted(path for path in shards.iterdir() if path.is_dir()) if shards.is_dir() else []
