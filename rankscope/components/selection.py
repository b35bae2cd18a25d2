"""Which matrices of a run get a spectrum at a step: one function per component."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from rankscope.checkpoints.contents import Adapter, Contents, Heads, Parameter, is_rescaled
from rankscope.checkpoints.merges import Merge
from rankscope.checkpoints.tensors import Tensor
from rankscope.components.circuits import Circuits, CircuitsChange
from rankscope.components.component import Component, Moment, component_of, weight_of
from rankscope.components.consecutive import Consecutive
from rankscope.components.deltas import DeltaChange, Rescaling
from rankscope.components.merged import last_merge, merged_total
from rankscope.components.recipes import Difference, Misfit, Products, Recipe, Weight
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
        yield replace(update, recipe=_after(earlier.get(update.name), update.recipe))


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
            recipe = _misfit(
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
        return _misfit(parameter, "base-changed", message)
    one_unknown = (later.scale is None) != (earlier.scale is None)
    if one_unknown or (later.scale is None and later.rank != earlier.rank):
        return _misfit(parameter, "scale-unknown", "its scale is not known at both steps")
    return DeltaChange(later, earlier)


def _gradients(moment: Moment) -> Iterator[Component]:
    for parameter in moment.now.gradients.values():
        if parameter.tensor is not None:
            yield component_of("gradient", parameter, Weight(parameter.tensor))


def _circuits(moment: Moment) -> Iterator[Component]:
    yield from _ov(moment.now, published=False, origins=moment.origins)


def _published_circuits(moment: Moment) -> Iterator[Component]:
    yield from _ov(moment.now, published=True, origins=moment.origins)


def _circuit_updates(moment: Moment) -> Iterator[Component]:
    if moment.previous is None or moment.since_previous is None:
        return
    modules = {_circuit(o): (o.module, v.module) for o, v in _attentions(moment.now)}
    before = {circuit.name: circuit.recipe for circuit in _ov(moment.previous, published=False)}
    for circuit in _ov(moment.now, published=False):
        later, earlier = circuit.recipe, before.get(circuit.name)
        if not isinstance(later, Circuits) or not isinstance(earlier, Circuits):
            continue
        recipe: Recipe = CircuitsChange(later, earlier)
        if later.heads != earlier.heads or later.shape != earlier.shape:
            message = f"was {earlier.heads} on {earlier.shape}, is {later.heads} on {later.shape}"
            path = later.output.tensor.paths[0]
            recipe = Misfit(
                shape=(),
                dtype="",
                path=path,
                name=circuit.name,
                reason="shape-changed",
                message=message,
            )
        heads = circuit.heads if isinstance(recipe, CircuitsChange) else 0
        change = replace(circuit, kind="ov_update", recipe=recipe, heads=heads)
        yield change.over(moment.since_previous, *modules[circuit.name])


def _ov(
    contents: Contents, *, published: bool, origins: Mapping[str, Tensor] | None = None
) -> Iterator[Component]:
    """Circuits of every layer that has o and v; their role is o, through which they write."""
    for output, value in _attentions(contents):
        left, right = weight_of(output, origins), weight_of(value, origins)
        heads = _heads_of_both(output, value)
        if heads is None or left is None or right is None:
            continue
        recipe: Recipe = Circuits(left, right, heads, published)
        if (output.shape[1], value.shape[0]) != (
            heads.count * heads.size,
            heads.kv_count * heads.size,
        ):
            message = (
                f"the config states {heads.count} heads of {heads.size} with {heads.kv_count} for "
                f"values; o is {list(output.shape)}, v is {list(value.shape)}"
            )
            recipe = _misfit(output, "config-mismatch", message)
        has_heads = not published and isinstance(recipe, Circuits)
        yield Component(
            kind="ov-published" if published else "ov",
            layer=output.layer,
            role="o",
            expert=None,
            name=_circuit(output),
            recipe=recipe,
            heads=heads.count if has_heads else 0,
        )


def _attentions(contents: Contents) -> Iterator[tuple[Parameter, Parameter]]:
    """Every o, with the v of the same attention."""
    values: dict[str, list[Parameter]] = {}
    for parameter in contents.parameters.values():
        if parameter.role == "v":
            values.setdefault(parameter.block, []).append(parameter)
    for output in contents.parameters.values():
        value = _nearest(output, values.get(output.block, ())) if output.role == "o" else None
        if value is not None:
            yield output, value


def _circuit(output: Parameter) -> str:
    return f"{_parent(output)}.ov"


def _nearest(output: Parameter, values: Sequence[Parameter]) -> Parameter | None:
    """The v of the same attention as an o: the nearest by path; None if two are equally near."""

    def shared(value: Parameter) -> int:
        parts = zip(output.module.split("."), value.module.split("."), strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], parts))

    nearest = sorted(values, key=shared, reverse=True)[:2]
    if len(nearest) == 2 and shared(nearest[0]) == shared(nearest[1]):
        return None
    return nearest[0] if nearest else None


def _heads_of_both(output: Parameter, value: Parameter) -> Heads | None:
    """Heads of a circuit: those that o reads; v may have fewer."""
    if output.heads is None or value.heads is None:
        return None
    return replace(output.heads, kv_count=value.heads.kv_count)


AT_CHECKPOINTS: Mapping[str, Callable[[Moment], Iterator[Component]]] = {
    "weight": _weights,
    "base": _bases,
    "adapter": _adapters,
    "factor": _factors,
    "update": _updates,
    "cumulative_update": _cumulative_updates,
    "gradient": _gradients,
    "ov": _circuits,
    "ov_update": _circuit_updates,
    "ov-published": _published_circuits,
}
AT_MERGES: Mapping[str, Callable[[Sequence[Merge], Contents | None], Iterator[Component]]] = {
    "merge": last_merge,
    "merged_total": merged_total,
}
COMPONENTS = (*AT_CHECKPOINTS, *AT_MERGES)
ON_REQUEST = ("base", "cumulative_update", "ov_update", "ov-published")


def _misfit(parameter: Parameter, reason: str, message: str) -> Misfit:
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


def _parent(parameter: Parameter) -> str:
    return parameter.module.rpartition(".")[0]
