"""`Component`, one matrix to decompose, and `Moment`, the checkpoints that it may be made of."""

from __future__ import annotations

from dataclasses import dataclass

from rankscope.checkpoints.contents import Contents, Parameter
from rankscope.components.sources import Source, Weight


@dataclass(frozen=True)
class Component:
    """One matrix of a model at a step, or the circuits of all heads of a layer.

    Attributes
    ----------
    component
        Which of its matrices: ``weight``, ``update``, ``adapter`` …
    layer, role, expert, name
        Where it is in the model.
    source
        How to read it.
    heads
        How many matrices the source gives, one a head; 0 where it gives one that has no head.
    """

    component: str
    layer: int | None
    role: str
    expert: int | None
    name: str
    source: Source
    heads: int = 0


@dataclass(frozen=True)
class Moment:
    """A checkpoint, with those that its updates are measured from.

    Attributes
    ----------
    merges_since_previous, merges_since_first
        Merges that the run has records of.
    restarts_since_previous, restarts_since_first
        Merges that the checkpoints count, of runs that keep no records.
    """

    now: Contents
    previous: Contents | None
    first: Contents | None
    merges_since_previous: int = 0
    merges_since_first: int = 0
    restarts_since_previous: int = 0
    restarts_since_first: int = 0


def component_of(component: str, parameter: Parameter, source: Source) -> Component:
    """The matrix of a parameter that a source reads."""
    return Component(
        component, parameter.layer, parameter.role, parameter.expert, parameter.name, source
    )


def weight_of(parameter: Parameter) -> Weight | None:
    """The weight that the model uses, where it is known."""
    if parameter.tensor is None or parameter.is_factor:
        return None
    if parameter.adapter is not None and parameter.adapter.scale is None:
        return None
    return Weight(parameter.tensor, parameter.adapter)
