"""What a run leaves on the disk: at which steps, and how many bytes."""

from __future__ import annotations

from dataclasses import dataclass

from rankscope.training.config import Config
from rankscope.training.parameter_counts import ParameterCounts
from rankscope.training.run_folder.retention import dropped, is_log_spaced
from rankscope.training.run_folder.state import KEPT_STATES
from rankscope.training.schedule import timeline


@dataclass(frozen=True)
class Disk:
    """Bytes of a finished run; logs and headers of files are left out."""

    checkpoints: int  # with weights, adapters and gradients
    merges: int
    states: int  # to go on from

    @property
    def total(self) -> int:
        """All of them."""
        return self.checkpoints + self.merges + self.states


def saved_steps(config: Config) -> list[int]:
    """Steps that have a checkpoint when the run is over."""
    log, steps = config.log, config.schedule.steps
    saved = {*range(0, steps, log.save_every), steps}
    if log.save_log_spaced:
        saved |= {
            s for s in range(1, min(steps, log.save_every)) if is_log_spaced(s, log.save_every)
        }
    if log.save_before_restarts:
        saved |= {boundary.step for boundary in timeline(config).boundaries}
    gone = dropped(list(saved), keep_last=log.keep_last, keep_every=log.keep_every)
    return sorted(saved.difference(gone))


def disk_estimate(config: Config, counts: tuple[ParameterCounts, ...]) -> Disk:
    """Add up what the parameters of each phase take, four bytes a number.

    A checkpoint holds every parameter and the gradients of the projections; a merge holds the
    adapters; a state, of which the newest are kept, every parameter and two moments of the trained
    ones in the last phase.
    """
    line = timeline(config)
    by_start = {phase.start: one for phase, one in zip(line.phases, counts, strict=True)}
    # What is saved at a boundary is from before it, so it belongs to the phase before.
    saved = [by_start[line.phase(max(step - 1, 0)).start] for step in saved_steps(config)]
    merged = [by_start[b.before.start].adapters for b in line.boundaries if b.merges]
    return Disk(
        checkpoints=4 * sum(one.total + one.projections for one in saved),
        merges=4 * sum(merged),
        states=4 * KEPT_STATES * (counts[-1].total + 2 * counts[-1].trainable),
    )
