"""Which matrices of a live model are copied together, and their recipes once copies are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from rankscope.checkpoints.account import roots
from rankscope.checkpoints.contents import Contents, Parameter, is_rescaled
from rankscope.checkpoints.merges import Merges
from rankscope.checkpoints.tensors import StoredTensor, Tensor
from rankscope.components.component import Component, Moment
from rankscope.components.selection import AT_CHECKPOINTS
from rankscope.components.windows import Window

# Circuits join matrices that are copied at different steps; merges are on record elsewhere.
LIVE_COMPONENTS = (
    *("weight", "base", "adapter", "factor", "update", "cumulative_update", "gradient"),
)
OF_WEIGHTS = tuple(name for name in LIVE_COMPONENTS if name not in ("adapter", "gradient"))


Places = Mapping[str, tuple[str, int]]
"""File and first byte of every copied tensor, by the name of its source."""


@dataclass(frozen=True)
class Group:
    """Matrices that share stored tensors, such as the parts of a fused weight: copied together.

    Attributes
    ----------
    parameters, gradients
        By name; their tensors have names of sources in place of paths.
    tensors
        What is stored of them.
    """

    parameters: Mapping[str, Parameter]
    gradients: Mapping[str, Parameter]
    tensors: tuple[StoredTensor, ...]

    @property
    def key(self) -> tuple[str, ...]:
        """The names of its matrices, which identify it."""
        return tuple(dict.fromkeys((*self.parameters, *self.gradients)))

    @property
    def slopes(self) -> tuple[StoredTensor, ...]:
        """What is stored of its gradients."""
        found = (root for one in self.gradients.values() for root in stored_in(one))
        return tuple({root.path: root for root in found}.values())

    @property
    def nbytes(self) -> int:
        """Size of a copy without gradients."""
        return sum(tensor.nbytes for tensor in self.tensors)


@dataclass(frozen=True)
class Copied:
    """A group as it was at a step.

    Attributes
    ----------
    contents
        Its matrices, whose tensors are in files.
    files
        These files.
    """

    step: int
    contents: Contents
    files: frozenset[str]


def groups_of(
    contents: Contents, has: Callable[[Parameter], bool], components: Sequence[str]
) -> list[Group]:
    """The groups of the wanted matrices, in the order of the model."""
    parameters = [_needed(p, components) for p in contents.parameters.values() if has(p)]
    gradients = contents.gradients.values() if "gradient" in components else ()
    wanted = [
        *((p, False) for p in parameters if p is not None),
        *((p, True) for p in gradients if has(p)),
    ]
    joined: dict[str, list[tuple[Parameter, bool]]] = {}  # by name of a stored tensor or matrix
    for one in wanted:
        places = [f"matrix:{one[0].name}", *(root.path for root in stored_in(one[0]))]
        before = {id(g): g for place in places if (g := joined.get(place)) is not None}
        group = [*(member for g in before.values() for member in g), one]
        merged = {id(g) for g in before.values()}
        for place, known in joined.items():
            if id(known) in merged:
                joined[place] = group
        joined |= dict.fromkeys(places, group)
    return [_group(members) for members in {id(g): g for g in joined.values()}.values()]


def _needed(parameter: Parameter, components: Sequence[str]) -> Parameter | None:
    """The parameter, without a weight that no component needs; None if none needs anything."""
    if not {*OF_WEIGHTS}.isdisjoint(components):
        return parameter
    if "adapter" not in components or parameter.adapter is None:
        return None
    return parameter if is_rescaled(parameter.adapter) else parameter._replace(tensor=None)


def stored_in(parameter: Parameter) -> Iterator[StoredTensor]:
    """The stored tensors that a parameter is read from."""
    adapter = () if parameter.adapter is None else parameter.adapter.tensors
    own = () if parameter.tensor is None else (parameter.tensor,)
    for tensor in (*own, *adapter):
        yield from (root for root in roots(tensor) if isinstance(root, StoredTensor))


def _group(members: Sequence[tuple[Parameter, bool]]) -> Group:
    tensors = {root.path: root for one, _ in members for root in stored_in(one)}
    return Group(
        {one.name: one for one, is_gradient in members if not is_gradient},
        {one.name: one for one, is_gradient in members if is_gradient},
        tuple(tensors.values()),
    )


def copied(group: Group, whole: Contents, step: int, places: Places) -> Copied:
    """A group whose stored tensors were copied to these places.

    A gradient that was not there has no place, and is left out.
    """
    slopes = {
        name: one
        for name, one in group.gradients.items()
        if all(root.path in places for root in stored_in(one))
    }
    contents = replace(
        whole,
        parameters={name: placed(one, places) for name, one in group.parameters.items()},
        gradients={name: placed(one, places) for name, one in slopes.items()},
    )
    return Copied(step, contents, frozenset(file for file, _ in places.values()))


def placed(part: Any, places: Places) -> Any:
    """The same with every stored tensor at its place; one without a place stays as it is."""
    if isinstance(part, StoredTensor):
        if part.path not in places:
            return part
        file, offset = places[part.path]
        return replace(part, path=file, offset=offset)
    if isinstance(part, tuple):
        moved = [placed(one, places) for one in part]
        return (
            part._make(moved) if hasattr(part, "_make") else tuple(moved)
        )  # a `NamedTuple`, or not
    if not is_dataclass(part) or isinstance(part, type):
        return part
    old = {one.name: getattr(part, one.name) for one in fields(part) if one.init}
    new = {name: placed(value, places) for name, value in old.items()}
    return replace(part, **{name: value for name, value in new.items() if value != old[name]})


def components_at(
    now: Copied,
    previous: Copied | None,
    first: Copied | None,
    *,
    second_last: Copied | None,
    asked: Sequence[str],
    merges: Merges,
    counted: Callable[[int, int], int | None],
    origins: Mapping[str, Tensor],
) -> tuple[Component, ...]:
    """The matrices to decompose of a group at a step.

    Parameters
    ----------
    previous, first, second_last
        The group as last measured, as first measured, and as measured before the last time.
    counted
        How many restarts whose merges were not in float64 there were from one step to before
        another; None if there were none in the run.
    origins
        As in `Moment`.
    """

    def window(earlier: Copied | None, later: Copied | None = now) -> Window | None:
        if earlier is None or later is None:
            return None
        adapted = earlier.contents.adapted, later.contents.adapted
        return Window(earlier.step, later.step, merges, counted(earlier.step, later.step), adapted)

    moment = Moment(
        now.contents,
        None if previous is None else previous.contents,
        None if first is None else first.contents,
        window(previous),
        window(first),
        None if second_last is None else second_last.contents,
        window(second_last, previous),
        origins,
    )
    found = (one for name in asked for one in AT_CHECKPOINTS[name](moment))
    return tuple(dict.fromkeys(found))  # a base may stand for a weight
