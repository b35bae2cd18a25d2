"""Which states are looked at, where all would take too long."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

from tests.reliability.power_loss.disk import Counts, Size
from tests.reliability.power_loss.promises import CrashState, crash_states
from tests.reliability.power_loss.recording import Recording

SMALL = Size(product=16, pairs=60, random=10)


@dataclass(frozen=True)
class Sample:
    """One in ``every`` states, chosen at random, and what is done with some of these.

    Attributes
    ----------
    resumed
        In one of so many the work is really continued to its end; 0 for none.
    lost_again
        In one of so many the power is lost again while the work is resumed; 0 for none.
    start
        Paths with whose first operation to begin; none begin at once.
    """

    size: Size = SMALL
    every: int = 1
    resumed: int = 0
    lost_again: int = 0
    start: tuple[str, ...] = ()
    seed: int = 0

    def chosen(
        self, recording: Recording, counts: Counts | None = None
    ) -> Iterator[tuple[int, CrashState]]:
        """The states to look at, numbered."""
        rng = random.Random(self.seed)
        states = crash_states(recording, self.size, seed=self.seed, counts=counts, start=self.start)
        yield from enumerate(state for state in states if not rng.randrange(self.every))
