"""What a call saw on disk, from which the next one can tell that nothing has changed.

The states of all files are compared, and no file is opened: a state has the times of the last
change of a file's content and of anything about it, the second of which no program can set back.
Only what is written within one tick of the file system's clock leaves no trace, so a file that was
young when the call began is not trusted.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from rankscope.checkpoints.file_states import State, state_of
from rankscope.durable import is_temporary
from rankscope.results.columns import OWN

SEEN = "seen"  # entry of a record: digest of what a call saw, and the other folders that it read
# By which the cache of the hub is found, where base models are looked for.
VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "HF_HOME")
CONFIGS = (".json", ".yaml", ".yml", ".toml")  # what layouts read in the folders above a checkpoint
TICK, COARSE_TICK = 30_000_000, 2_000_000_000  # ns; the second for clocks of whole seconds
SECOND = 1_000_000_000

States = dict[str, State | None]


@dataclass(frozen=True)
class Seen:
    """All files of some folders, at one moment.

    Attributes
    ----------
    roots
        Folders or files, with everything below them.
    files
        The state of each file by its path.
    at
        When it was seen, in nanoseconds.
    """

    roots: tuple[str, ...]
    files: States
    at: int

    @classmethod
    def below(cls, paths: Iterable[str | Path], *, without: Path | None = None) -> Seen:
        """Look at all files below these paths, and at names and configs in two folders above.

        Parameters
        ----------
        without
            The folder of the results, whose own files are left out.
        """
        roots = tuple(dict.fromkeys(str(Path(path).resolve()) for path in paths))
        left_out = None if without is None else str(without.resolve())
        files: States = {}
        at = time.time_ns()
        for root in roots:
            files[root] = None if Path(root).is_dir() else state_of(root)
            files |= dict(_iter_below(root, left_out))
            for folder in _above(root):
                names = (one.path for one in _listed(folder, is_out=folder == left_out))
                files |= dict.fromkeys(name for name in names if name not in (*roots, left_out))
            files |= configs_above(root)
        return cls(roots, files, at)

    def covers(self, path: str | Path) -> bool:
        """Whether a path is one of the roots, or below one."""
        whole = str(Path(path).resolve())
        return any(whole == root or whole.startswith(root + os.sep) for root in self.roots)

    def apart(self, folders: Iterable[str]) -> list[str]:
        """Those of some folders that are not covered."""
        return sorted({folder for folder in folders if not self.covers(folder)})

    def is_settled(self, beside: States) -> bool:
        """Whether a change after this moment shows, here and in files ``beside``."""
        return are_old(self.files, self.at) and are_old(beside, self.at)


def seen_in(record: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What a record says that its call saw; None if that is not there as this version notes it."""
    seen = record.get(SEEN)
    is_whole = isinstance(seen, Mapping) and {"digest", "folders"} <= {*seen}
    return seen if is_whole and record.get("key") else None


def configs_above(path: str | Path) -> States:
    """Files in the two folders above a path that a layout may read for it."""
    found = (files_in(folder) for folder in _above(path))
    return {n: s for some in found for n, s in some.items() if n.endswith(CONFIGS)}


def _above(path: str | Path) -> list[str]:
    return [str(folder) for folder in Path(path).resolve().parents[:2]]


def files_in(folder: str) -> States:
    """The files of one folder, without those below."""
    found = (one for one in _listed(folder) if one.name not in OWN and not one.is_dir())
    return {one.path: state_of(one.path) for one in found}


def in_folders(folders: Iterable[str]) -> States:
    """The files of some folders, without those below."""
    return {path: state for folder in folders for path, state in files_in(folder).items()}


def digest_of_question(about: object, *states: States) -> str:
    """Digest of a question and of states of files."""
    text = repr((about, *(sorted(some.items()) for some in states)))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def states_of(folders: Iterable[Path]) -> States:
    """All files below some folders."""
    return {path: state for folder in folders for path, state in _iter_below(str(folder.resolve()))}


def _iter_below(folder: str, without: str | None = None) -> Iterator[tuple[str, State | None]]:
    """Each file and folder below a folder; links to folders are not followed."""
    for entry in _listed(folder, is_out=folder == without):
        if entry.is_dir(follow_symlinks=False):
            if entry.path != without:
                yield entry.path, None
            yield from _iter_below(entry.path, without)
        else:
            yield entry.path, state_of(entry.path)


def _listed(folder: str, *, is_out: bool = False) -> list[os.DirEntry[str]]:
    """The content of a folder; empty if it is not a folder or may not be listed.

    In the folder of the results, files that calls write are left out.
    """
    try:
        with os.scandir(folder) as entries:
            return [one for one in entries if not (is_out and _is_own(one.name))]
    except OSError:
        return []


def _is_own(name: str) -> bool:
    return name in OWN or is_temporary(name)


def are_old(states: States, at: int) -> bool:
    """Whether a change of these files after a moment shows in their states."""
    return all(_is_old(state, at) for state in states.values() if state is not None)


@cache
def states_of_package() -> States:
    """The files of this package: another version may find something else in the same files."""
    found = states_of([Path(__file__).parents[1]])
    return {path: state for path, state in found.items() if path.endswith((".py", ".toml"))}


def _is_old(state: State, at: int) -> bool:
    _, modified, changed = state
    latest = max(modified, changed)
    tick = COARSE_TICK if latest % SECOND == 0 else TICK
    return latest < at - tick
