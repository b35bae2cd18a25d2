"""Which checkpoints are complete, and whether a training has ended, while others are writing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from rankscope.checkpoints.file_states import FileStates, states_below
from rankscope.checkpoints.manifest import listed_files
from rankscope.checkpoints.run import Checkpoint, Run
from rankscope.checkpoints.training_log import configured_steps, read_training_log
from rankscope.errors import RankscopeError

PATIENCE = 6  # times longer before a checkpoint that cannot be read as a whole is taken as it is
NON_FINITE = "non-finite"  # the event that is logged last when a loss is not finite


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
    _seen: dict[Path, tuple[FileStates, float]] = field(default_factory=dict)

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


def files_of(checkpoint: Checkpoint) -> FileStates:
    """The files of a checkpoint with their states."""
    return tuple(states_below(checkpoint.path).items())


def _is_whole(checkpoint: Checkpoint) -> bool:
    try:
        return not checkpoint.read().skips
    except RankscopeError:
        return False


def has_ended(run: Run) -> bool:
    """Whether the run has the checkpoint of its last step, or stopped on a loss that is not finite.

    An interrupted run has not ended: it may be resumed. That of another program never ends, as far
    as its folder shows.
    """
    steps = configured_steps(run)
    if steps is None:
        return False
    if run.steps[-1] >= steps:
        return True
    log = read_training_log(run)
    return bool(log) and log[-1].get("event") == NON_FINITE
