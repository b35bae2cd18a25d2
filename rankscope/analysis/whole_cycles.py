"""Cycles of a run that recorded its merges: where they end, and what they were merged into."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rankscope.checkpoints.contents import Contents, Parameter, Skip
from rankscope.checkpoints.merges import Merge
from rankscope.checkpoints.run import Run
from rankscope.checkpoints.tensors import Tensor
from rankscope.errors import RankscopeError


def ends_cycle(contents: Contents, step: int, merges: Sequence[Merge]) -> bool:
    """Whether a window of whole cycles may end, and the next one begin, at this checkpoint.

    In a run without restarts, it may at any checkpoint. Where restarts are only counted, it may at
    none: a cycle is known to have ended, but not where.
    """
    if merges:
        begins = step == 0 and bool(contents.adapted)
        return begins or any(merge.step == step for merge in merges)
    return contents.restarts is None


def no_cycles(
    run: Run, merges: Sequence[Merge], steps: Iterable[int], origins: Mapping[str, Parameter]
) -> tuple[Skip, ...]:
    """The skip where whole cycles are requested and no two checkpoints enclose one."""
    if merges:
        begins = any(parameter.adapter is not None for parameter in origins.values())
        ends = sum(any(m.step == s for m in merges) or (s == 0 and begins) for s in steps)
        message = "no two checkpoints are at restarts: no update spans a whole cycle"
        return () if ends > 1 else (Skip(str(run.path), "", "no-cycles", message),)
    if not run.checkpoints or _restarts(run) is None:
        return ()
    message = "counts its restarts but does not record them, so where a cycle ends is not known"
    return (Skip(str(run.path), "", "no-cycles", message),)


def origins_of(run: Run, merges: Sequence[Merge]) -> Mapping[str, Parameter]:
    """Weights of the first checkpoint, if it precedes the first merge.

    The requested steps do not matter: a merged weight keeps the rounding of the weight
    that it was merged into.
    """
    if not merges or not run.checkpoints or run.checkpoints[0].step > merges[0].step:
        return {}
    try:
        return run.checkpoints[0].read().parameters
    except RankscopeError:  # reported where the checkpoint itself is read
        return {}


def merged_before(
    step: int, merges: Sequence[Merge], origins: Mapping[str, Parameter]
) -> dict[str, Tensor]:
    """The original weights that a merge changed before this step."""
    done = {module for merge in merges if merge.step < step for module in merge.adapters}
    return {
        name: parameter.tensor
        for name, parameter in origins.items()
        if parameter.tensor is not None and parameter.module in done
    }


def _restarts(run: Run) -> int | None:
    try:
        return run.checkpoints[0].read().restarts
    except RankscopeError:
        return None
