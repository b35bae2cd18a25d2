"""Which matrices of a run get a spectrum at a step: one function per component."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from rankscope.checkpoints.contents import Adapter, Contents, Parameter, is_rescaled
from rankscope.checkpoints.merges import Merge
from rankscope.checkpoints.tensors import Tensor
from rankscope.components.attentions import circuit_updates, circuits
from rankscope.components.component import Component, Moment, component_of, misfit, weight_of
from rankscope.components.consecutive import Consecutive
from rankscope.components.deltas import DeltaChange, Rescaling
from rankscope.components.merged import last_merge, merged_total
from rankscope.components.recipes import Difference, Products, Recipe, Weight
from rankscope.components.windows import Window


def _weights(moment: Moment) -> Iterator[Component]:
    for parameter in moment.now.parameters.values():
        weight = weight_of(parameter, moment.origins)
        if weight is not None:
            yield component_of("weight", parameter, weight)
        elif parameter.tensor is not None and not parameter.is_factor:
            # The scale of its adapter is unknown, and so is the weight: measure its base instead.
            yield component_of("base", parameter, _base(parameter.tensor, parameter, moment))


def _bases(moment: Moment) -> Iterator[Component]:
    for parameter in moment.now.parameters.values():
        if parameter.tensor is not None and parameter.adapter is not None:
            yield component_of("base", parameter, _base(parameter.tensor, parameter, moment))


def _base(tensor: Tensor, parameter: Parameter, moment: Moment) -> Weight:
    return Weight(tensor, origin=moment.origins.get(parameter.name))


def _adapters(moment: Moment) -> Iterator[Component]:
    for parameter in moment.now.parameters.values():
        weight, adapter = weight_of(parameter), parameter.adapter
        if adapter is None:
            continue
        recipe: Recipe = Products((adapter,))
        if weight is not None and isinstance(adapter, Adapter) and is_rescaled(adapter):
            recipe = Rescaling(weight.tensor, adapter)
        yield component_of("adapter", parameter, recipe)


def _factors(moment: Moment) -> Iterator[Component]:
    for parameter in moment.now.parameters.values():
        if parameter.is_factor and parameter.tensor is not None:
            yield component_of("factor", parameter, Weight(parameter.tensor))


def _updates(moment: Moment) -> Iterator[Component]:
    if moment.previous is None or moment.since_previous is None:
        return
    earlier: dict[str, Recipe] = {}
    if moment.second_last is not None and moment.before_previous is not None:
        changes = _changes("update", moment.previous, moment.second_last, moment.before_previous)
        earlier = {change.name: change.recipe for change in changes}
    for update in _changes("update", moment.now, moment.previous, moment.since_previous):
        yield update._replace(recipe=_after(earlier.get(update.name), update.recipe))


def _after(before: Recipe | None, change: Recipe) -> Recipe:
    """A change with the one before it, where both can be formed in the same way."""
    if isinstance(before, Difference) and isinstance(change, Difference):
        return Consecutive(change, before)
    if isinstance(before, DeltaChange) and isinstance(change, DeltaChange):
        return Consecutive(change, before)
    return change


def _cumulative_updates(moment: Moment) -> Iterator[Component]:
    if moment.first is not None and moment.since_first is not None:
        yield from _changes("cumulative_update", moment.now, moment.first, moment.since_first)


def _changes(
    component: str, now: Contents, before: Contents, window: Window
) -> Iterator[Component]:
    for name, parameter in now.parameters.items():
        old = before.parameters.get(name)
        if old is None:
            continue
        later, earlier = weight_of(parameter), weight_of(old)
        if parameter.tensor is None and old.tensor is None:
            recipe = _change_of_adapter(parameter, old, now, before)
        else:
            recipe = _difference(later, earlier, window, parameter.module)
        if recipe is not None and parameter.shape != old.shape:
            recipe = misfit(
                parameter, "shape-changed", f"was {list(old.shape)}, is {list(parameter.shape)}"
            )
        if recipe is not None:
            yield component_of(component, parameter, recipe).over(window, parameter.module)


def _difference(
    later: Weight | None, earlier: Weight | None, window: Window, module: str
) -> Difference | None:
    """The change of a weight; merges that are only counted are assumed to touch all adapters."""
    if later is None or earlier is None:
        return None
    is_adapted = later.adapter is not None or earlier.adapter is not None
    counted = (window.counted or 0) if is_adapted else 0
    return Difference(later, earlier, window.merged(module), counted)


def _change_of_adapter(
    parameter: Parameter, old: Parameter, now: Contents, before: Contents
) -> Recipe | None:
    """The change of an adapter without its base; None if that is not the change of its weight.

    Two unknown scales count as equal, since both are from one training: ranks do not depend on the
    scale, and norms are not given.
    """
    later, earlier = parameter.adapter, old.adapter
    if later is None or earlier is None or is_rescaled(later) or is_rescaled(earlier):
        return None
    if now.base_named != before.base_named:
        message = f"was on the base {before.base_named!r}, is on {now.base_named!r}"
        return misfit(parameter, "base-changed", message)
    one_unknown = (later.scale is None) != (earlier.scale is None)
    if one_unknown or (later.scale is None and later.rank != earlier.rank):
        return misfit(parameter, "scale-unknown", "its scale is not known at both steps")
    return DeltaChange(later, earlier)


def _gradients(moment: Moment) -> Iterator[Component]:
    for parameter in moment.now.gradients.values():
        if parameter.tensor is not None:
            yield component_of("gradient", parameter, Weight(parameter.tensor))


AT_CHECKPOINTS: Mapping[str, Callable[[Moment], Iterator[Component]]] = {
    "weight": _weights,
    "base": _bases,
    "adapter": _adapters,
    "factor": _factors,
    "update": _updates,
    "cumulative_update": _cumulative_updates,
    "gradient": _gradients,
    "ov": partial(circuits, "ov"),
    "ov_update": partial(circuit_updates, "ov"),
    "ov-published": partial(circuits, "ov-published"),
    "qk": partial(circuits, "qk"),
    "qk_update": partial(circuit_updates, "qk"),
}
AT_MERGES: Mapping[str, Callable[[Sequence[Merge], Contents | None], Iterator[Component]]] = {
    "merge": last_merge,
    "merged_total": merged_total,
}
COMPONENTS = (*AT_CHECKPOINTS, *AT_MERGES)
ON_REQUEST = ("base", "cumulative_update", "ov_update", "ov-published", "qk", "qk_update")
