"""Which matrices of a run get a spectrum at a step: one function a component."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from rankscope.checkpoints.contents import Contents, Heads, Parameter
from rankscope.checkpoints.families.family import families
from rankscope.checkpoints.families.parameters import parameters_of
from rankscope.checkpoints.merges import Merge
from rankscope.components.circuits import Circuits, CircuitsChange
from rankscope.components.sources import Difference, Misfit, Products, Source, Weight


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


def _weights(moment: Moment) -> Iterator[Component]:
    for parameter in moment.now.parameters.values():
        weight = _weight(parameter)
        if weight is not None:
            yield _component("weight", parameter, weight)


def _bases(moment: Moment) -> Iterator[Component]:
    for parameter in moment.now.parameters.values():
        if parameter.tensor is not None and parameter.adapter is not None:
            yield _component("base", parameter, Weight(parameter.tensor))


def _adapters(moment: Moment) -> Iterator[Component]:
    for parameter in moment.now.parameters.values():
        if parameter.adapter is not None:
            yield _component("adapter", parameter, Products((parameter.adapter,)))


def _updates(moment: Moment) -> Iterator[Component]:
    if moment.previous is not None:
        merges = moment.merges_since_previous, moment.restarts_since_previous
        yield from _changes("update", moment.now, moment.previous, merges)


def _cumulative_updates(moment: Moment) -> Iterator[Component]:
    if moment.first is not None:
        merges = moment.merges_since_first, moment.restarts_since_first
        yield from _changes("cumulative_update", moment.now, moment.first, merges)


def _changes(
    component: str, now: Contents, before: Contents, merges: tuple[int, int]
) -> Iterator[Component]:
    for name, parameter in now.parameters.items():
        later, old = _weight(parameter), before.parameters.get(name)
        earlier = None if old is None else _weight(old)
        if later is None or earlier is None or old is None:
            continue
        source: Source = Difference(later, earlier, *merges)
        if parameter.shape != old.shape:
            source = _misfit(
                parameter, "shape-changed", f"was {list(old.shape)}, is {list(parameter.shape)}"
            )
        yield _component(component, parameter, source)


def _gradients(moment: Moment) -> Iterator[Component]:
    for parameter in moment.now.gradients.values():
        if parameter.tensor is not None:
            yield _component("gradient", parameter, Weight(parameter.tensor))


def _circuits(moment: Moment) -> Iterator[Component]:
    yield from _ov(moment.now, published=False)


def _published_circuits(moment: Moment) -> Iterator[Component]:
    yield from _ov(moment.now, published=True)


def _circuit_updates(moment: Moment) -> Iterator[Component]:
    if moment.previous is None:
        return
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
        yield replace(
            circuit,
            component="ov_update",
            source=source,
            heads=circuit.heads if isinstance(source, CircuitsChange) else 0,
        )


def _ov(contents: Contents, *, published: bool) -> Iterator[Component]:
    """Circuits of every layer that has o and v; under role o, through which they write."""
    values: dict[str, list[Parameter]] = {}
    for parameter in contents.parameters.values():
        if parameter.role == "v":
            values.setdefault(parameter.block, []).append(parameter)
    for output in contents.parameters.values():
        value = _nearest(output, values.get(output.block, ())) if output.role == "o" else None
        left = _weight(output)
        right = None if value is None else _weight(value)
        heads = _heads_of_both(output, value)
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


def _nearest(output: Parameter, values: Sequence[Parameter]) -> Parameter | None:
    """Of the values in a block those of the same attention, which are the nearest by path."""

    def shared(value: Parameter) -> int:
        parts = zip(output.module.split("."), value.module.split("."), strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], parts))

    nearest = sorted(values, key=shared, reverse=True)[:2]
    if len(nearest) == 2 and shared(nearest[0]) == shared(nearest[1]):
        return None
    return nearest[0] if nearest else None


def _heads_of_both(output: Parameter, value: Parameter | None) -> Heads | None:
    """Heads of a circuit: those that o reads, of which the values may have fewer."""
    if value is None or output.heads is None or value.heads is None:
        return None
    return replace(output.heads, kv_count=value.heads.kv_count)


def _merge(merges: Sequence[Merge]) -> Iterator[Component]:
    for parameter in _merged(merges):
        yield _component("merge", parameter, Products((merges[-1].adapters[parameter.module],)))


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


def _weight(parameter: Parameter) -> Weight | None:
    if parameter.tensor is None:
        return None
    return Weight(parameter.tensor, parameter.adapter)


def _misfit(parameter: Parameter, reason: str, message: str) -> Misfit:
    path = "" if parameter.tensor is None else parameter.tensor.paths[0]
    return Misfit(parameter.shape, parameter.dtype, path, parameter.name, reason, message)


def _parent(parameter: Parameter) -> str:
    return parameter.module.rpartition(".")[0]
