"""Which checkpoints are complete, although somebody else may still be writing."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from rankscope.checkpoints.fingerprint import State, state_of
from rankscope.checkpoints.manifest import listed_files
from rankscope.checkpoints.run import Checkpoint
from rankscope.errors import RankscopeError

Files = tuple[tuple[str, State | None], ...]
PATIENCE = 6  # times longer before a checkpoint that cannot be read as a whole is taken as it is


@dataclass
class Readiness:
    """Judges checkpoints by whether their files have stopped changing.

    A checkpoint with a manifest of rankscope's trainer is complete by its name: the folder gets it
    when the last file is written. That of another program is complete once its files have stayed as
    they are for ``settle`` seconds and all of it can be read: headers, and every shard that its
    index names. One that cannot is either unfinished or damaged. After six times as long it is
    taken as it is, and the analysis says what is wrong with it.

    Attributes
    ----------
    settle
        Seconds for which the files of a checkpoint must not change.
    """

    settle: float
    _seen: dict[Path, tuple[Files, float]] = field(default_factory=dict)

    def is_ready(self, checkpoint: Checkpoint, now: float) -> bool:
        """Whether a checkpoint can be measured; ``now`` is the time in seconds on any clock."""
        if listed_files(checkpoint.path):
            return True
        files = files_of(checkpoint)
        seen = self._seen.get(checkpoint.path)  # none yet is not the same as no files
        if seen is None or seen[0] != files:
            self._seen[checkpoint.path] = files, now
            return False
        unchanged = now - seen[1]
        if unchanged < self.settle:
            return False
        return unchanged >= PATIENCE * self.settle or _is_whole(checkpoint)


def files_of(checkpoint: Checkpoint) -> Files:
    """The files of a checkpoint with their sizes and times."""
    path = checkpoint.path
    # What may not be listed or looked at has no state, and is not an error here.
    below = [str(Path(folder, name)) for folder, _, names in os.walk(path) for name in names]
    return tuple((one, state_of(one)) for one in (sorted(below) if path.is_dir() else [str(path)]))


def _is_whole(checkpoint: Checkpoint) -> bool:
    try:
        return not checkpoint.read().skips
    except RankscopeError:
        return False
