"""What happens at which step: pure functions of one integer, the optimizer steps completed.

A restart at step t is done before update t, so a checkpoint of step t never sits between a merge
and the new adapters, and update t is the first of its cycle.
"""

from __future__ import annotations

import math

from rankscope.training.config import ScheduleConfig


def is_restart(step: int, schedule: ScheduleConfig) -> bool:
    """Whether the adapters are merged and renewed before the update of this step.

    The last step has no update, so a run never ends with adapters that learned nothing.
    """
    every = schedule.restart_every
    return every > 0 and 0 < step < schedule.steps and step % every == 0


def restarts_before(step: int, schedule: ScheduleConfig) -> int:
    """Restarts done by the time that this step is reached, its own not counted."""
    if schedule.restart_every == 0 or step == 0:
        return 0
    return (step - 1) // schedule.restart_every


def learning_rate(step: int, schedule: ScheduleConfig) -> float:
    """Learning rate of the update of this step, counted from 0.

    The product of (1) a linear warm-up at the start, (2) one after every restart and (3) a cosine
    from 1 at the end of (1) to ``minimum_ratio``. Both warm-ups start at 1 / length rather than
    at 0, where a batch would be learned from in vain.
    """
    return schedule.learning_rate * learning_rate_multiplier(step, schedule)


def learning_rate_multiplier(step: int, schedule: ScheduleConfig) -> float:
    """Part of the peak learning rate that is used at this step, in (0, 1]."""
    return (
        _ramp(step, schedule.warmup_steps) * _restart_ramp(step, schedule) * _cosine(step, schedule)
    )


def _ramp(step: int, length: int) -> float:
    return min(1.0, (step + 1) / length) if length else 1.0


def _restart_ramp(step: int, schedule: ScheduleConfig) -> float:
    if schedule.restart_every == 0 or step < schedule.restart_every:
        return 1.0
    return _ramp(step % schedule.restart_every, schedule.restart_warmup_steps)


def _cosine(step: int, schedule: ScheduleConfig) -> float:
    start, low = schedule.warmup_steps, schedule.minimum_ratio
    progress = max(0, step - start) / (schedule.steps - start)
    return low + (1 - low) * (1 + math.cos(math.pi * progress)) / 2
