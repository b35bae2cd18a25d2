"""At which steps a run writes checkpoints, and which of them it drops again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rankscope.durable import remove_folder
from rankscope.run_files import STEP_NAME
from rankscope.training.config import LogConfig
from rankscope.training.schedule import Timeline


def is_saved(step: int, log: LogConfig, timeline: Timeline) -> bool:
    """Whether a checkpoint of this step is written; that of the last step always is.

    Not before a restart whose previous update had rate zero, as in the published schedule, where
    the step before that update was saved: the two checkpoints would hold the same weights.
    """
    if step == timeline.schedule.steps or step % log.save_every == 0:
        return True
    if log.save_log_spaced and is_log_spaced(step, log.save_every):
        return True
    if not log.save_before_restarts or timeline.boundary(step) is None:
        return False
    return timeline.learning_rate(step - 1) != 0 or not is_saved(step - 1, log, timeline)


def is_log_spaced(step: int, save_every: int) -> bool:
    """Whether a step is one of 1, 2, 4, 8, ... below ``save_every``."""
    return 0 < step < save_every and step.bit_count() == 1


def dropped(steps: Sequence[int], *, keep_last: int, keep_every: int) -> list[int]:
    """Steps whose checkpoints are no longer kept, the earliest first.

    Parameters
    ----------
    steps
        Steps that have a checkpoint, in any order.
    keep_last
        How many of the latest are kept; 0 keeps all.
    keep_every
        Multiples of it are kept too; 0 keeps no others.

    Returns
    -------
    All but the latest, the multiples, and the first, from which changes are measured.
    """
    ordered = sorted(steps)
    if keep_last == 0:
        return []
    return [s for s in ordered[1:-keep_last] if keep_every == 0 or s % keep_every]


def drop_checkpoints(run: Path, log: LogConfig) -> None:
    """Remove the checkpoints that `dropped` names; merges and states stay.

    A process that is killed while it removes leaves only complete checkpoints, all kept ones
    among them. The next call removes the rest, and `sweep` whatever was half removed.
    """
    folder = run / "checkpoints"
    by_step = {int(m[1]): p for p in folder.iterdir() if (m := STEP_NAME.fullmatch(p.name))}
    for step in dropped(list(by_step), keep_last=log.keep_last, keep_every=log.keep_every):
        remove_folder(by_step[step])
