"""Which maps of an attention make its circuits: OV and QK, of plain and of latent attention.

With x and y what the attention reads at the two positions, head h weighs position y by xᵀ·QK[h]·y,
and writes OV[h]·y:

    plain    QK = W_Q[h]ᵀ·W_K[g]                             OV = W_O[:, h]·W_V[g]
    latent   QK = (W_QB[h]·G·W_QA)ᵀ·(W_KB[h]·G′·W_KA)        OV = W_O[:, h]·(W_VB[h]·G′·W_KA)

where g is the group of h, and G are the gains of norms between two maps. Rotary positions turn
queries and keys before they are multiplied, so QK is the map between equal positions. In latent
attention, each head has further entries for the position alone. They are not in QK: relative to the
others their weight differs from token to token, since only the others are normalised.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rankscope.checkpoints.contents import (
    Contents,
    Heads,
    LatentHeads,
    Parameter,
    UnknownNorm,
)
from rankscope.checkpoints.tensors import Tensor
from rankscope.components.circuits import Circuits, CircuitsChange, Cut, Link
from rankscope.components.component import Component, Moment, misfit, weight_of
from rankscope.components.recipes import Misfit, Recipe, Weight

Kind = Literal["ov", "ov-published", "qk"]


@dataclass(frozen=True)
class _Map:
    """A map of an attention, and its weight."""

    parameter: Parameter
    weight: Weight

    def link(self, cut: Cut, *, by_columns: bool = False, turned: bool = False) -> Link:
        """A factor made of its blocks, with the norm after them, or before them if columns."""
        norm = self.parameter.norm
        gained = None if isinstance(norm, UnknownNorm) else norm
        return Link(self.weight, cut, gained, by_columns, turned)


def _plain_ov(heads: Heads, o: _Map, v: _Map) -> tuple[Link, ...]:
    return (
        o.link(Cut(heads.count, heads.size), by_columns=True),
        v.link(Cut(heads.kv_count, heads.size)),
    )


def _plain_qk(heads: Heads, q: _Map, k: _Map) -> tuple[Link, ...]:
    return (
        q.link(Cut(heads.count, heads.size), turned=True),
        k.link(Cut(heads.kv_count, heads.size)),
    )


def _latent_ov(heads: Heads, o: _Map, kv_b: _Map, kv_a: _Map) -> tuple[Link, ...]:
    assert isinstance(heads, LatentHeads)
    size, plain = heads.value_size, heads.size - heads.rotary
    value = kv_b.link(Cut(heads.count, size, step=plain + size, start=plain))
    return o.link(Cut(heads.count, size), by_columns=True), value, _latent(heads, kv_a)


def _latent_qk(heads: Heads, q: _Map, kv_b: _Map, kv_a: _Map, *q_a: _Map) -> tuple[Link, ...]:
    assert isinstance(heads, LatentHeads)
    size = heads.size - heads.rotary
    query = q.link(Cut(heads.count, size, step=heads.size), turned=True)
    key = kv_b.link(Cut(heads.count, size, step=size + heads.value_size))
    first = (one.link(Cut(1, one.parameter.shape[0]), turned=True) for one in q_a)
    return (*first, query, key, _latent(heads, kv_a))


def _latent(heads: LatentHeads, kv_a: _Map) -> Link:
    """The latent vector, without the entries of the key that are for the position alone."""
    rows = kv_a.parameter.shape[0]
    return kv_a.link(Cut(1, rows - heads.rotary, step=rows))


@dataclass(frozen=True)
class _Form:
    """One way to make circuits: of which maps, and how.

    Attributes
    ----------
    roles
        Every layer that has maps of all these roles has circuits, named after the first.
    heads
        The kind of heads that it is for.
    """

    roles: tuple[str, ...]
    heads: type[Heads]
    links: Callable[..., tuple[Link, ...]]


OV = _Form(("o", "v"), Heads, _plain_ov)
FORMS: Mapping[Kind, tuple[_Form, ...]] = {
    "ov": (OV, _Form(("o", "kv_b", "kv_a"), LatentHeads, _latent_ov)),
    "ov-published": (OV,),
    "qk": (
        _Form(("q", "k"), Heads, _plain_qk),
        _Form(("q", "kv_b", "kv_a"), LatentHeads, _latent_qk),
        _Form(("q_b", "kv_b", "kv_a", "q_a"), LatentHeads, _latent_qk),
    ),
}


def circuits(kind: Kind, moment: Moment) -> Iterator[Component]:
    """The circuits of every attention of a checkpoint that has the maps that they are made of.

    Their role is that of the map to the residual stream (o), or to the queries (q).
    """
    for component, _ in _circuits(kind, moment.now, moment.origins):
        yield component


def circuit_updates(kind: Literal["ov", "qk"], moment: Moment) -> Iterator[Component]:
    """The change of every circuit since the previous checkpoint."""
    if moment.previous is None or moment.since_previous is None:
        return
    before = {circuit.name: circuit.recipe for circuit, _ in _circuits(kind, moment.previous)}
    for circuit, modules in _circuits(kind, moment.now):
        earlier = before.get(circuit.name)
        if earlier is not None:
            recipe = _change(circuit, earlier)
            heads = circuit.heads if isinstance(recipe, CircuitsChange) else 0
            change = circuit._replace(kind=f"{kind}_update", recipe=recipe, heads=heads)
            yield change.over(moment.since_previous, *modules)


def _change(circuit: Component, earlier: Recipe) -> Recipe:
    later = circuit.recipe
    if not isinstance(later, Circuits):
        return later
    if not isinstance(earlier, Circuits):
        return earlier
    if later.cuts == earlier.cuts:
        return CircuitsChange(later, earlier)
    message = f"was {earlier.cuts[0]} of {earlier.shape}, is {later.cuts[0]} of {later.shape}"
    return Misfit(
        shape=(),
        dtype="",
        path=later.tensors()[0].paths[0],
        name=circuit.name,
        reason="shape-changed",
        message=message,
    )


def _circuits(
    kind: Kind, contents: Contents, origins: Mapping[str, Tensor] | None = None
) -> Iterator[tuple[Component, tuple[str, ...]]]:
    """The circuits of every attention, and the modules that each is made of."""
    for form in FORMS[kind]:
        for members in _attentions(contents, form.roles):
            heads = _heads_of_both(*members[:2])
            maps = [_Map(one, weight) for one in members if (weight := weight_of(one, origins))]
            if type(heads) is not form.heads or len(maps) < len(members):
                continue
            name = f"{members[0].module.rpartition('.')[0]}.{kind.partition('-')[0]}"
            recipe = _recipe(form.links(heads, *maps), heads, members, kind)
            if isinstance(recipe, Misfit):
                recipe = replace(recipe, name=name)
            has_heads = isinstance(recipe, Circuits) and not recipe.published
            component = Component(
                kind=kind,
                layer=members[0].layer,
                role="q" if kind == "qk" else "o",
                expert=None,
                name=name,
                recipe=recipe,
                heads=heads.count if has_heads else 0,
            )
            yield component, tuple(one.module for one in members)


def _recipe(
    links: tuple[Link, ...], heads: Heads, members: Sequence[Parameter], kind: Kind
) -> Circuits | Misfit:
    """The circuits, or why they are not certain."""
    unknown = ((one, one.norm) for one in members if isinstance(one.norm, UnknownNorm))
    for one, norm in unknown:
        return misfit(one, norm.reason, norm.message)
    recipe = Circuits(links, heads.count, published=kind == "ov-published")
    if recipe.fits:
        return recipe
    shapes = ", ".join(f"{one.role} is {list(one.shape)}" for one in members)
    message = (
        f"the config states {heads.count} heads of {heads.size} with {heads.kv_count} for keys and "
        f"values; {shapes}"
    )
    return misfit(members[0], "config-mismatch", message)


def _attentions(contents: Contents, roles: tuple[str, ...]) -> Iterator[tuple[Parameter, ...]]:
    """Every map of the first role, with those of the other roles in the same attention."""
    found: dict[tuple[str, str], list[Parameter]] = {}
    for parameter in contents.parameters.values():
        found.setdefault((parameter.role, parameter.block), []).append(parameter)
    for first in contents.parameters.values():
        if first.role == roles[0]:
            others = [_nearest(first, found.get((role, first.block), ())) for role in roles[1:]]
            members = [one for one in others if one is not None]
            if len(members) == len(others):
                yield (first, *members)


def _nearest(one: Parameter, others: Sequence[Parameter]) -> Parameter | None:
    """The map of the same attention: the nearest by path; None if two are equally near."""

    def shared(other: Parameter) -> int:
        parts = zip(one.module.split("."), other.module.split("."), strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], parts))

    nearest = sorted(others, key=shared, reverse=True)[:2]
    if len(nearest) == 2 and shared(nearest[0]) == shared(nearest[1]):
        return None
    return nearest[0] if nearest else None


def _heads_of_both(first: Parameter, second: Parameter) -> Heads | None:
    """Heads of a circuit: those of its first map; the map to keys or values may have fewer."""
    if first.heads is None or second.heads is None:
        return None
    return replace(first.heads, kv_count=second.heads.kv_count)
