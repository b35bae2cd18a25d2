"""Whether a training of rankscope has ended, from what it leaves in its run folder."""

from __future__ import annotations

import tomllib

from rankscope.checkpoints.run import Run
from rankscope.checkpoints.training_log import read_training_log

NON_FINITE = "non-finite"  # the event that is logged last when a loss is not finite


def has_ended(run: Run) -> bool:
    """Whether the run has the checkpoint of its last step, or stopped on a loss that is not finite.

    An interrupted run has not ended: it may be resumed. That of another program never ends, as far
    as its folder shows.
    """
    try:
        config = tomllib.loads((run.path / "config.toml").read_text(encoding="utf-8"))
        steps = int(config["schedule"]["steps"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
    if run.steps[-1] >= steps:
        return True
    log = read_training_log(run)
    return bool(log) and log[-1].get("event") == NON_FINITE
