"""Why a component that was asked for has no row in a run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from rankscope.analysis.history import BETWEEN, Step
from rankscope.components.component import Component

CHANGES = ("update", "cumulative_update", "ov_update")
CIRCUITS = ("ov", "ov_update", "ov-published")


@dataclass
class Facts:
    """What the steps of a run hold between them.

    Attributes
    ----------
    read
        How many checkpoints could be read.
    weights, adapters, heads
        Whether any holds weights, adapters, and numbers of heads.
    breaks
        Whether the series breaks.
    whole_cycles
        Whether updates over whole cycles only are asked for.
    offered, planned
        Components that there are, and those of them in the layers and roles that were asked for.
    """

    read: int = 0
    weights: bool = False
    adapters: bool = False
    heads: bool = False
    breaks: bool = False
    whole_cycles: bool = False
    offered: set[str] = field(default_factory=set)
    planned: set[str] = field(default_factory=set)

    def add(self, step: Step, asked: Iterable[Component]) -> None:
        """Learn what one step holds, and what of it is asked for."""
        self.offered |= {one.kind for one in step.components}
        self.planned |= {one.kind for one in asked}
        self.breaks |= step.breaks
        if step.contents is not None:
            parameters = step.contents.parameters.values()
            self.read += 1
            self.weights |= any(one.tensor is not None for one in parameters)
            self.adapters |= any(one.adapter is not None for one in parameters)
            self.heads |= step.contents.heads is not None


def why_none(component: str, facts: Facts) -> str:
    """Why a run has nothing of a component, in words."""
    if component in facts.offered:
        return "none of its matrices is of the layers and roles that are asked for"
    if not facts.read:
        return "no checkpoint of it can be read"
    if component == "gradient":
        return "no gradients lie beside its weights"
    if component in ("merge", "merged_total"):
        return "it keeps no record of merges"
    if component in ("adapter", "base") and not facts.adapters:
        return "it has no adapters"
    if component == "factor":
        return "none of its matrices is kept as factors with a function between them"
    if component in CHANGES and facts.read == 1:
        return "it has one checkpoint, and a change takes two"
    if component in BETWEEN and facts.whole_cycles:
        return "no two of its checkpoints, between which it does not break, enclose a whole cycle"
    if not facts.weights:
        if facts.adapters:
            return "its adapters stand alone: the weights that they change are not found"
        return "it holds no weight matrix"
    if component in CIRCUITS and not facts.heads:
        return "its number of heads is not known"
    if component in CIRCUITS:
        return "no layer has both v and o"
    return "no matrix is held by two steps" + (", between which it breaks" if facts.breaks else "")
