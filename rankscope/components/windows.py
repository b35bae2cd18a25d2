"""`Window`: from one checkpoint to a later one, and what that spans in a run with restarts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rankscope.checkpoints.merges import NO_MERGES, Merges

Span = Literal["", "within", "cycle", "across"]


@dataclass(frozen=True)
class Window:
    """The two checkpoints that a change is measured between.

    A checkpoint at the step of a merge is from before the merge, so a window from one merge to the
    next holds what one adapter learned.

    Attributes
    ----------
    since, step
        Steps of the two checkpoints.
    merges
        All merges that the run has on record. One that cannot be read is taken to be of every
        module that has an adapter.
    counted
        How many merges the checkpoints count in between, in a run that keeps no record; None if
        they do not count them.
    adapted
        Modules that have an adapter in the earlier and in the later checkpoint.
    """

    since: int
    step: int
    merges: Merges = NO_MERGES
    counted: int | None = None
    adapted: tuple[frozenset[str], frozenset[str]] = (frozenset(), frozenset())

    def merged(self, module: str) -> int:
        """How many times an adapter was merged into this module between the two checkpoints."""
        return sum(self.since <= step < self.step for step in self._steps(module))

    def restarts(self, *modules: str) -> int:
        """How many restarts of these modules' adapters are after its start and before its end.

        Where restarts are only counted, one at the start is included.
        """
        if self.merges.steps:
            return sum(self.since < step < self.step for step in self._steps(*modules))
        return (self.counted or 0) if any(self._adapted(modules)) else 0

    def kind(self, *modules: str) -> Span:
        """The kind of this window for these modules; kinds are never joined in one line or summary.

        ``within`` a cycle: B₁A₁ − B₀A₀, of rank up to 2r, whose second half is mostly tiny. A whole
        ``cycle``: B·A, of rank r; training that starts with adapters starts a cycle. ``across``
        restarts, or from full training to adapters: a sum of parts. Empty if nothing is known of
        restarts, and for modules that no merge touched. Where restarts are only counted, a whole
        cycle is not recognised and counts as one of the other two.
        """
        steps, (then, now) = self._steps(*modules), self._adapted(modules)
        if self.restarts(*modules):
            return "across"
        if self.since in steps or (self.since == 0 and then and steps):
            return "cycle" if self.step in steps else "within"
        if (not steps and (self.merges.steps or self.counted is None)) or not (then or now):
            return ""
        return "within" if then and now else "across"

    def _adapted(self, modules: tuple[str, ...]) -> tuple[bool, bool]:
        then, now = (not adapted.isdisjoint(modules) for adapted in self.adapted)
        return then, now

    def _steps(self, *modules: str) -> list[int]:
        read = [m.step for m in self.merges.read if not m.adapters.keys().isdisjoint(modules)]
        return [*read, *(self.merges.unread if any(self._adapted(modules)) else ())]
