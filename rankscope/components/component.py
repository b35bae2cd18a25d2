"""`Component`, one matrix to decompose, and `Moment`, the checkpoints that it may be made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from rankscope.checkpoints.contents import Contents, Parameter
from rankscope.checkpoints.tensors import Tensor
from rankscope.components.recipes import Recipe, Weight
from rankscope.components.windows import Span, Window


@dataclass(frozen=True)
class Component:
    """One matrix of a model at a step, or the circuits of all heads of a layer.

    Attributes
    ----------
    kind
        Which of its matrices: ``weight``, ``update``, ``adapter`` …
    layer, role, expert, name
        Where it is in the model.
    recipe
        How to read it.
    heads
        How many matrices the recipe gives, one a head; 0 where it gives one that has no head.
    since, restarts, window
        Of a change: the step at which its window begins, None where that is not one of the run;
        the restarts within; and its kind.
    """

    kind: str
    layer: int | None
    role: str
    expert: int | None
    name: str
    recipe: Recipe
    heads: int = 0
    since: int | None = None
    restarts: int | None = None
    window: Span = ""

    def over(self, window: Window, *modules: str) -> Component:
        """The same as a change of these modules over a window."""
        return replace(
            self,
            since=window.since if window.since >= 0 else None,
            restarts=window.restarts(*modules),
            window=window.kind(*modules),
        )


@dataclass(frozen=True)
class Moment:
    """A checkpoint, with those that its updates are measured from.

    Attributes
    ----------
    origins
        By the name of a weight, what it was before the first merge on record changed it.
    """

    now: Contents
    previous: Contents | None = None
    first: Contents | None = None
    since_previous: Window | None = None
    since_first: Window | None = None
    origins: Mapping[str, Tensor] = field(default_factory=dict)


def component_of(kind: str, parameter: Parameter, recipe: Recipe) -> Component:
    """The matrix of a parameter that a recipe reads."""
    return Component(
        kind, parameter.layer, parameter.role, parameter.expert, parameter.name, recipe
    )


def weight_of(parameter: Parameter, origins: Mapping[str, Tensor] | None = None) -> Weight | None:
    """The weight that the model uses, where it is known; ``origins`` as in `Moment`."""
    if parameter.tensor is None or parameter.is_factor:
        return None
    if parameter.adapter is not None and parameter.adapter.scale is None:
        return None
    return Weight(parameter.tensor, parameter.adapter, (origins or {}).get(parameter.name))
