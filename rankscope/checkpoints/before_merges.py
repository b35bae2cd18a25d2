"""Weights as they were before the first merge of a run, whose rounding they have kept since."""

from __future__ import annotations

from collections.abc import Mapping

from rankscope.checkpoints.contents import Parameter
from rankscope.checkpoints.merges import Merges
from rankscope.checkpoints.run import Run
from rankscope.checkpoints.tensors import Tensor
from rankscope.errors import RankscopeError


def origins_of(run: Run, merges: Merges) -> Mapping[str, Parameter]:
    """Weights of the first checkpoint, if it precedes the first merge.

    The requested steps do not matter: a merged weight keeps the rounding of the weight
    that it was merged into.
    """
    if not merges.steps or not run.checkpoints or run.checkpoints[0].step > merges.steps[0]:
        return {}
    try:
        return run.checkpoints[0].read().parameters
    except RankscopeError:  # reported where the checkpoint itself is read
        return {}


def merged_before(step: int, merges: Merges, origins: Mapping[str, Parameter]) -> dict[str, Tensor]:
    """The original weights that a merge changed before this step.

    One that cannot be read is taken to have changed every weight that had an adapter.
    """
    done = {module for merge in merges.read if merge.step < step for module in merge.adapters}
    is_any_unread = any(merged < step for merged in merges.unread)
    return {
        name: parameter.tensor
        for name, parameter in origins.items()
        if parameter.tensor is not None
        and (parameter.module in done or (is_any_unread and parameter.adapter is not None))
    }
