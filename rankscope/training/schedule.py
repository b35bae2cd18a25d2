"""What happens at which step: pure functions of one integer, the optimizer steps completed.

The work at a boundary is done before the update of its step, so a checkpoint of that step is never
from between a merge and the new adapters, and the update is the first of its cycle.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from functools import cached_property

from rankscope.new_cycle import ramp
from rankscope.training.config import LOW_RANK_METHODS, Config, PhaseMethod, ScheduleConfig


@dataclass(frozen=True)
class Phase:
    """A method from a step on; ``rate`` multiplies its learning rate."""

    method: PhaseMethod
    start: int
    rate: float = 1.0

    @property
    def has_adapters(self) -> bool:
        """Whether adapters are trained while the weights below them are frozen."""
        return self.method in LOW_RANK_METHODS


@dataclass(frozen=True)
class Boundary:
    """A step before whose update a cycle or a phase ends."""

    step: int
    before: Phase
    after: Phase

    @property
    def merges(self) -> bool:
        """Whether adapters end here."""
        return self.before.has_adapters

    @property
    def event(self) -> str:
        """Its name in the log."""
        return "restart" if self.before is self.after else "phase"


@dataclass(frozen=True)
class Timeline:
    """Phase and learning rate of every step of a run, and what is done before its update.

    Attributes
    ----------
    schedule
        Length, learning rate and restarts.
    phases
        In order; the first begins at step 0.
    zero_rate_step
        Whether to follow the published schedule, see `published_multiplier`.
    """

    schedule: ScheduleConfig
    phases: tuple[Phase, ...]
    zero_rate_step: bool = False

    def phase(self, step: int) -> Phase:
        """Phase that the update of this step belongs to."""
        return [phase for phase in self.phases if phase.start <= step][-1]

    def boundary(self, step: int) -> Boundary | None:
        """What ends before the update of this step, if anything does."""
        index = bisect_left(self._boundary_steps, step)
        is_one = index < len(self._boundary_steps) and self._boundary_steps[index] == step
        return self.boundaries[index] if is_one else None

    def merges_before(self, step: int) -> int:
        """Number of merges before this step, not counting one at the step itself."""
        return sum(b.merges for b in self.boundaries[: bisect_left(self._boundary_steps, step)])

    def cycles_before(self, step: int) -> int:
        """Number of cycles begun before this step, not counting one at the step itself."""
        if step == 0:
            return 0
        past = self.boundaries[: bisect_left(self._boundary_steps, step)]
        return self.phases[0].has_adapters + sum(b.after.has_adapters for b in past)

    @cached_property
    def boundaries(self) -> tuple[Boundary, ...]:
        """All boundaries in order; none at the last step, which has no update."""
        ends = [phase.start for phase in self.phases[1:]] + [self.schedule.steps]
        boundaries: list[Boundary] = []
        for index, (phase, end) in enumerate(zip(self.phases, ends, strict=True)):
            if index:
                boundaries.append(Boundary(phase.start, self.phases[index - 1], phase))
            if phase.method == "relora":
                first = phase.start + self.schedule.restart_every + self.zero_rate_step
                restarts = range(first, end, self.schedule.restart_every)
                boundaries += [Boundary(step, phase, phase) for step in restarts]
        return tuple(boundaries)

    @cached_property
    def _boundary_steps(self) -> list[int]:
        return [boundary.step for boundary in self.boundaries]

    def learning_rate(self, step: int) -> float:
        """Learning rate of the update of this step, counted from 0."""
        multiplier = published_multiplier if self.zero_rate_step else learning_rate_multiplier
        peak = self.schedule.learning_rate * self.phase(step).rate
        return peak * multiplier(step, self)

    def last_boundary(self, step: int) -> int | None:
        """Step of the last boundary at or before this step."""
        count = bisect_right(self._boundary_steps, step)
        return self._boundary_steps[count - 1] if count else None


def timeline(config: Config, *, first_phase_end: int | None = None) -> Timeline:
    """Timeline of a run.

    Parameters
    ----------
    config
        The run.
    first_phase_end
        Where the first phase ended, if it ended early; see `rankscope.training.settling`.
    """
    methods, lengths = config.phase_methods, list(config.phases.lengths)
    if first_phase_end is not None:
        lengths[0] = first_phase_end
    rates = config.phases.rates or (1.0,) * len(methods)
    starts = [sum(lengths[:index]) for index in range(len(methods))]
    return Timeline(
        config.schedule,
        tuple(map(Phase, methods, starts, rates)),
        config.relora.published.zero_rate_step,
    )


def learning_rate_multiplier(step: int, timeline: Timeline) -> float:
    """Share of the peak learning rate at a step, in (0, 1].

    The product of (1) a linear warm-up at the start, (2) one after every boundary and (3) a decay
    from 1 at the end of (1) to ``minimum_ratio``. Both warm-ups start at 1 / length rather than at
    0, which would waste a batch.
    """
    schedule, boundary = timeline.schedule, timeline.last_boundary(step)
    restart = 1.0
    if boundary is not None:
        restart = ramp(step - boundary + 1, schedule.restart_warmup_steps)
    return ramp(step + 1, schedule.warmup_steps) * restart * _decay(step, schedule)


def published_multiplier(step: int, timeline: Timeline) -> float:
    """Share of the peak learning rate at a step, in [0, 1], as in the published programs.

    With f = ``restart_every``, p = ``restart_warmup_steps``, w = ``warmup_steps`` and the decay c:
    t/w below w, (t mod f)/p · c(⌊t/f⌋f + p) in the first p steps from every multiple of f on, and
    c(t) otherwise. So step 0 and every multiple of f have rate 0, and the restart comes after that
    update. From ``training_utils.py`` in Guitaricet/relora, which relora-pico took over.
    In phases, multiples of f are counted from the start of each phase, which is one of them.
    """
    schedule, phase = timeline.schedule, timeline.phase(step)
    p, w = schedule.restart_warmup_steps, schedule.warmup_steps
    past = step - phase.start
    if phase.method == "relora":
        past %= schedule.restart_every
    if step < w:
        return step / w
    if past < p and past < step:  # the first cycle of all has the warm-up instead
        return past / p * _decay(step - past + p, schedule)
    return _decay(step, schedule)


def _decay(step: int, schedule: ScheduleConfig) -> float:
    start, low = schedule.warmup_steps, schedule.minimum_ratio
    end = schedule.horizon or schedule.steps
    progress = min(1.0, max(0, step - start) / (end - start))
    match schedule.decay:
        case "cosine":
            return low + (1 - low) * (1 + math.cos(math.pi * progress)) / 2
        case "linear":
            return low + (1 - low) * (1 - progress)
    return 1.0
