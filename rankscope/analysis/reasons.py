"""Why a requested component has no row in a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rankscope.analysis.history import BETWEEN, Step
from rankscope.components.component import Component

CHANGES = ("update", "cumulative_update", "ov_update", "qk_update")
CIRCUITS = {"ov": "v and o", "ov_update": "v and o", "ov-published": "v and o"}
CIRCUITS |= {"qk": "q and k", "qk_update": "q and k"}


@dataclass
class Facts:
    """What the steps of a run hold, taken together.

    Attributes
    ----------
    read
        Number of checkpoints that could be read.
    skipped
        Whether a checkpoint or anything in one was skipped.
    weights, adapters, heads
        Whether any step has weights, adapters, and a number of heads.
    last_break
        The last step that does not continue the previous ones; None if the series does not break.
    lacks_base
        Whether the model that an adapter names was not found.
    whole_cycles
        Whether only updates over whole cycles are requested.
    offered, planned
        Components that exist, and those with matrices in the requested layers and roles.
    """

    read: int = 0
    skipped: bool = False
    weights: bool = False
    adapters: bool = False
    heads: bool = False
    last_break: int | None = None
    lacks_base: bool = False
    whole_cycles: bool = False
    offered: set[str] = field(default_factory=set)
    planned: set[str] = field(default_factory=set)

    def restore(self, known: Mapping[str, Any]) -> None:
        """Take over what is known about the previous steps."""
        for name, value in known.items():
            setattr(self, name, value)

    def add(self, step: Step, asked: Iterable[Component]) -> None:
        """Add what one step holds, and which of its components are requested."""
        self.offered |= {one.kind for one in step.components}
        self.planned |= {one.kind for one in asked}
        self.last_break = step.step if step.breaks else self.last_break
        self.skipped |= bool(step.skips)
        if step.contents is not None:
            parameters = step.contents.parameters.values()
            self.read += 1
            self.weights |= any(one.tensor is not None for one in parameters)
            self.adapters |= any(one.adapter is not None for one in parameters)
            self.heads |= step.contents.heads is not None
            self.lacks_base |= bool(step.contents.base_named) and step.contents.base is None


def why_none(component: str, facts: Facts) -> str | None:
    """Why a run has no matrix of a component, in words; None if its skips say so."""
    if component in facts.offered:
        return "none of its matrices is in the requested layers and roles"
    if component in ("merge", "merged_total"):
        return "it keeps no record of merges"
    if facts.skipped and not facts.weights and not facts.adapters:
        return None
    if not facts.read:
        return "it has no checkpoint at the requested steps"
    if component == "gradient":
        return "no gradients are stored with its weights"
    if component in ("adapter", "base") and not facts.adapters:
        return "it has no adapters"
    if component == "factor":
        return "none of its matrices is stored as factors with a function between them"
    if component in CHANGES and facts.read == 1:
        return "it has one checkpoint, and a change takes two"
    if component in BETWEEN and facts.whole_cycles:
        return "no two of its checkpoints enclose a whole cycle without a break"
    if not facts.weights:
        if facts.adapters:
            return "its adapters stand alone: the weights that they change are not found"
        return "it holds no weight matrix"
    if component in CIRCUITS and not facts.heads:
        return "its number of heads is not known"
    if component in CIRCUITS:
        return f"no layer has both {CIRCUITS[component]}"
    without = "" if facts.last_break is None else " without a break between them"
    return f"no matrix is held by two steps{without}"
