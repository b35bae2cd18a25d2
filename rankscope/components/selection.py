"""Which matrices of a run get a spectrum at a step: one function a component."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rankscope.checkpoints.contents import Contents, Parameter
from rankscope.checkpoints.families.family import families
from rankscope.checkpoints.families.names import block_of
from rankscope.checkpoints.families.parameters import parameters_of
from rankscope.checkpoints.merges import Merge
from rankscope.checkpoints.tensors import Tensor
from rankscope.components.circuits import Circuits, CircuitsChange
from rankscope.components.sources import Difference, Misfit, Products, Source, Weight
from rankscope.components.windows import Kind, Window


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
    since, restarts, window
        Of a change: the step at which its window begins, the restarts within, and its kind.
    """

    component: str
    layer: int | None
    role: str
    expert: int | None
    name: str
    source: Source
    heads: int = 0
    since: int | None = None
    restarts: int | None = None
    window: Kind = ""


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


def _weights(moment: Moment) -> Iterator[Component]:
    for parameter in moment.now.parameters.values():
        weight = _weight(parameter, moment.origins)
        if weight is not None:
            yield _component("weight", parameter, weight)


def _bases(moment: Moment) -> Iterator[Component]:
    for parameter in moment.now.parameters.values():
        if parameter.tensor is not None and parameter.adapter is not None:
            base = Weight(parameter.tensor, origin=moment.origins.get(parameter.name))
            yield _component("base", parameter, base)


def _adapters(moment: Moment) -> Iterator[Component]:
    for parameter in moment.now.parameters.values():
        if parameter.adapter is not None:
            yield _component("adapter", parameter, Products((parameter.adapter,)))


def _updates(moment: Moment) -> Iterator[Component]:
    if moment.previous is not None and moment.since_previous is not None:
        yield from _changes("update", moment.now, moment.previous, moment.since_previous)


def _cumulative_updates(moment: Moment) -> Iterator[Component]:
    if moment.first is not None and moment.since_first is not None:
        yield from _changes("cumulative_update", moment.now, moment.first, moment.since_first)


def _changes(
    component: str, now: Contents, before: Contents, window: Window
) -> Iterator[Component]:
    for name, parameter in now.parameters.items():
        later, old = _weight(parameter), before.parameters.get(name)
        earlier = None if old is None else _weight(old)
        if later is None or earlier is None or old is None:
            continue
        is_adapted = later.adapter is not None or earlier.adapter is not None
        counted = (window.counted or 0) if is_adapted else 0
        source: Source = Difference(later, earlier, window.merged(parameter.module), counted)
        if parameter.shape != old.shape:
            source = _misfit(
                parameter, "shape-changed", f"was {list(old.shape)}, is {list(parameter.shape)}"
            )
        yield _over(_component(component, parameter, source), window, parameter.module)


def _over(component: Component, window: Window, *modules: str) -> Component:
    return replace(
        component,
        since=window.since,
        restarts=window.restarts(*modules),
        window=window.kind(*modules),
    )


def _gradients(moment: Moment) -> Iterator[Component]:
    for parameter in moment.now.gradients.values():
        if parameter.tensor is not None:
            yield _component("gradient", parameter, Weight(parameter.tensor))


def _circuits(moment: Moment) -> Iterator[Component]:
    yield from _ov(moment.now, published=False, origins=moment.origins)


def _published_circuits(moment: Moment) -> Iterator[Component]:
    yield from _ov(moment.now, published=True, origins=moment.origins)


def _circuit_updates(moment: Moment) -> Iterator[Component]:
    if moment.previous is None or moment.since_previous is None:
        return
    modules: dict[str, list[str]] = {}
    for parameter in moment.now.parameters.values():
        if parameter.role in ("o", "v"):
            modules.setdefault(block_of(parameter.module), []).append(parameter.module)
    before = {circuit.name: circuit.source for circuit in _ov(moment.previous, published=False)}
    for circuit in _ov(moment.now, published=False):
        later, earlier = circuit.source, before.get(circuit.name)
        if not isinstance(later, Circuits) or not isinstance(earlier, Circuits):
            continue
        source: Source = CircuitsChange(later, earlier)
        if later.heads != earlier.heads or later.shape != earlier.shape:
            message = f"was {earlier.heads} on {earlier.shape}, is {later.heads} on {later.shape}"
            path = later.output.tensor.paths[0]
            source = Misfit((), "", path, circuit.name, "shape-changed", message)
        heads = circuit.heads if isinstance(source, CircuitsChange) else 0
        found = replace(circuit, component="ov_update", source=source, heads=heads)
        yield _over(found, moment.since_previous, *modules[block_of(circuit.name)])


def _ov(
    contents: Contents, *, published: bool, origins: Mapping[str, Tensor] | None = None
) -> Iterator[Component]:
    """Circuits of every layer that has o and v; under role o, through which they write."""
    heads = contents.heads
    values = {block_of(p.module): p for p in contents.parameters.values() if p.role == "v"}
    for output in contents.parameters.values():
        value = values.get(block_of(output.module)) if output.role == "o" else None
        left = _weight(output, origins)
        right = None if value is None else _weight(value, origins)
        if heads is None or value is None or left is None or right is None:
            continue
        source: Source = Circuits(left, right, heads, published)
        if (output.shape[1], value.shape[0]) != (
            heads.count * heads.size,
            heads.kv_count * heads.size,
        ):
            message = (
                f"the config states {heads.count} heads of {heads.size} with {heads.kv_count} for "
                f"values; o is {list(output.shape)}, v is {list(value.shape)}"
            )
            source = _misfit(output, "config-mismatch", message)
        one_a_head = not published and isinstance(source, Circuits)
        yield Component(
            "ov-published" if published else "ov",
            output.layer,
            "o",
            None,
            f"{_parent(output)}.ov",
            source,
            heads=heads.count if one_a_head else 0,
        )


def _merge(merges: Sequence[Merge]) -> Iterator[Component]:
    for parameter in _merged(merges):
        module = parameter.module
        found = _component("merge", parameter, Products((merges[-1].adapters[module],)))
        before = [merge.step for merge in merges[:-1] if module in merge.adapters]
        yield replace(found, since=before[-1] if before else None, restarts=0, window="cycle")


def _merged_total(merges: Sequence[Merge]) -> Iterator[Component]:
    for parameter in _merged(merges):
        module = parameter.module
        merged = tuple(m.adapters[module] for m in merges if module in m.adapters)
        yield _component("merged_total", parameter, Products(merged))


def _merged(merges: Sequence[Merge]) -> Iterable[Parameter]:
    """What the last merge changed; this package's trainer, which records merges, is Llama-like."""
    family = families()["llama-like"]
    return parameters_of({}, family, None, merges[-1].adapters).parameters.values()


AT_CHECKPOINTS: Mapping[str, Callable[[Moment], Iterator[Component]]] = {
    "weight": _weights,
    "base": _bases,
    "adapter": _adapters,
    "update": _updates,
    "cumulative_update": _cumulative_updates,
    "gradient": _gradients,
    "ov": _circuits,
    "ov_update": _circuit_updates,
    "ov-published": _published_circuits,
}
AT_MERGES: Mapping[str, Callable[[Sequence[Merge]], Iterator[Component]]] = {
    "merge": _merge,
    "merged_total": _merged_total,
}
COMPONENTS = (*AT_CHECKPOINTS, *AT_MERGES)
ON_REQUEST = ("base", "cumulative_update", "ov_update", "ov-published")


def _component(component: str, parameter: Parameter, source: Source) -> Component:
    return Component(
        component, parameter.layer, parameter.role, parameter.expert, parameter.name, source
    )


def _weight(parameter: Parameter, origins: Mapping[str, Tensor] | None = None) -> Weight | None:
    if parameter.tensor is None:
        return None
    return Weight(parameter.tensor, parameter.adapter, (origins or {}).get(parameter.name))


def _misfit(parameter: Parameter, reason: str, message: str) -> Misfit:
    path = "" if parameter.tensor is None else parameter.tensor.paths[0]
    return Misfit(parameter.shape, parameter.dtype, path, parameter.name, reason, message)


def _parent(parameter: Parameter) -> str:
    return parameter.module.rpartition(".")[0]
