"""Cycles of a run that recorded its merges: where they end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rankscope.checkpoints.contents import Contents, Parameter, Skip
from rankscope.checkpoints.merges import Merges
from rankscope.checkpoints.run import Run
from rankscope.errors import RankscopeError


def ends_cycle(contents: Contents, step: int, merges: Merges) -> bool:
    """Whether a window of whole cycles may end, and the next one begin, at this checkpoint.

    In a run without restarts, it may at any checkpoint. Where restarts are only counted, it may at
    none: a cycle is known to have ended, but not where.
    """
    if merges.steps:
        begins = step == 0 and bool(contents.adapted)
        return begins or step in merges.steps
    return contents.restarts is None


def no_cycles(
    run: Run, merges: Merges, steps: Iterable[int], origins: Mapping[str, Parameter]
) -> tuple[Skip, ...]:
    """The skip where whole cycles are requested and no two checkpoints enclose one."""
    if merges.steps:
        begins = any(parameter.adapter is not None for parameter in origins.values())
        ends = sum(step in merges.steps or (step == 0 and begins) for step in steps)
        message = "no two checkpoints are at restarts: no update spans a whole cycle"
        return () if ends > 1 else (Skip(str(run.path), "", "no-cycles", message),)
    if not run.checkpoints or _restarts(run) is None:
        return ()
    message = "counts its restarts but does not record them, so where a cycle ends is not known"
    return (Skip(str(run.path), "", "no-cycles", message),)


def _restarts(run: Run) -> int | None:
    try:
        return run.checkpoints[0].read().restarts
    except RankscopeError:
        return None
