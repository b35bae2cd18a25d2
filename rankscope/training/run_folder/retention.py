"""Which steps have a checkpoint besides the regular ones, and which checkpoints are dropped."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from rankscope.durable import remove_folder
from rankscope.training.config import LogConfig

_STEP_NAME = re.compile(r"step-(\d{8,})")


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
        So many of the latest are kept; 0 keeps all.
    keep_every
        Multiples of it are kept too; 0 keeps no others.

    Returns
    -------
    All but the latest, the multiples and the first: changes are measured from that one.
    """
    ordered = sorted(steps)
    if keep_last == 0:
        return []
    return [s for s in ordered[1:-keep_last] if keep_every == 0 or s % keep_every]


def drop_checkpoints(run: Path, log: LogConfig) -> None:
    """Remove the checkpoints that `dropped` names; merges and states are left alone.

    A process that is killed meanwhile leaves only complete checkpoints, the kept ones among them;
    the next call removes the rest, and `sweep` what was being removed.
    """
    folder = run / "checkpoints"
    found = {int(m[1]): p for p in folder.iterdir() if (m := _STEP_NAME.fullmatch(p.name))}
    for step in dropped(list(found), keep_last=log.keep_last, keep_every=log.keep_every):
        remove_folder(found[step])
