"""`Component`, one matrix to decompose, and `Moment`, the checkpoints that it is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from rankscope.checkpoints.contents import Contents, Parameter
from rankscope.checkpoints.tensors import Tensor
from rankscope.components.recipes import Misfit, Recipe, Weight
from rankscope.components.windows import Span, Window


class Component(NamedTuple):
    """One matrix of a model at a step, or the circuits of all heads in a layer.

    Attributes
    ----------
    kind
        Which matrix of a parameter: ``weight``, ``update``, ``adapter`` …
    layer, role, expert, name
        Where the parameter is in the model.
    recipe
        How to read it.
    heads
        How many matrices the recipe gives, one per head; 0 for a single matrix without a head.
    since, restarts, window
        For a change: the step at which its window begins, None if that is not a step of the run;
        the number of restarts within; and its kind.
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
        """The same component, as a change of these modules over a window."""
        return self._replace(
            since=window.since if window.since >= 0 else None,
            restarts=window.restarts(*modules),
            window=window.kind(*modules),
        )


@dataclass(frozen=True)
class Moment:
    """A checkpoint, with the checkpoints that its updates are measured from.

    Attributes
    ----------
    now, previous, first
        The checkpoint, the one before it, and the first of the run.
    since_previous, since_first
        The windows from those to this one.
    second_last, before_previous
        The checkpoint before the previous one, and the window from there to the previous one.
    origins
        Weights as they were before the first merge on record, by name.
    """

    now: Contents
    previous: Contents | None = None
    first: Contents | None = None
    since_previous: Window | None = None
    since_first: Window | None = None
    second_last: Contents | None = None
    before_previous: Window | None = None
    origins: Mapping[str, Tensor] = field(default_factory=dict)


def component_of(kind: str, parameter: Parameter, recipe: Recipe) -> Component:
    """The component of a parameter that a recipe reads."""
    return Component(
        kind=kind,
        layer=parameter.layer,
        role=parameter.role,
        expert=parameter.expert,
        name=parameter.name,
        recipe=recipe,
    )


def weight_of(parameter: Parameter, origins: Mapping[str, Tensor] | None = None) -> Weight | None:
    """The weight that the model uses, None if that is not known; ``origins`` as in `Moment`."""
    if parameter.tensor is None or parameter.is_factor:
        return None
    if parameter.adapter is not None and parameter.adapter.scale is None:
        return None
    return Weight(parameter.tensor, parameter.adapter, (origins or {}).get(parameter.name))


def misfit(parameter: Parameter, reason: str, message: str) -> Misfit:
    """In place of a matrix of a parameter that should be there but cannot be formed."""
    tensors = (parameter.tensor, *(parameter.adapter.tensors if parameter.adapter else ()))
    path = next((tensor.paths[0] for tensor in tensors if tensor is not None), "")
    return Misfit(
        shape=parameter.shape,
        dtype=parameter.dtype,
        path=path,
        name=parameter.name,
        reason=reason,
        message=message,
    )
