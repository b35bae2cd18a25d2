"""Norms between the maps of an attention, such as QK-norm: found beside each map, and attached.

What a norm computes is not in its file: whether its gain is the stored numbers or one more, and
whether it subtracts the mean, follows from a table of norms. Without one, a tensor that may be
between two maps makes the product of these uncertain; so does a gate, which multiplies the input
of o by other numbers for each token. The cost of an error: circuits of a model are missing, with
the reason, because a tensor that has nothing to do with them is called like one that has; or they
lack what is between two maps under a name that says nothing of it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping
from math import prod

from rankscope.checkpoints.contents import GainedNorm, Parameter, UnknownNorm
from rankscope.checkpoints.families.convolutions import is_convolution
from rankscope.checkpoints.families.family import Family
from rankscope.checkpoints.families.heads import Towers
from rankscope.checkpoints.families.neighbours import Neighbours, words
from rankscope.checkpoints.families.no_maps import PLACES
from rankscope.checkpoints.families.norm_tables import NormTable, known_norms
from rankscope.checkpoints.tensors import FLOATS, Tensor

ADVICE = "a family file of your own can name its [[norms]]"
NO_GATES = "gates have no place in a circuit"
GAINS = ("weight", "scale", "gamma", "gain")
# Words for what a map of each role gives; letters that distinguish the halves of a map come second.
CALLED = {
    "q": ({"q", "qk", "query", "queries"}, set()),
    "k": ({"k", "qk", "key", "keys"}, set()),
    "v": ({"v", "value", "values"}, set()),
    "q_a": ({"q"}, {"a"}),
    "q_b": ({"q"}, {"b"}),
    "kv_a": ({"kv"}, {"a"}),
    "kv_b": ({"kv"}, {"b"}),
}
HALVES = {"a", "b"}
OF_HEADS = ("q", "k", "v")  # whose outputs a convolution in the attention may mix
# Of tensors between values and o: those that multiply by other numbers for each token, and norms.
GATES = {"g", "gate", "gates", "gated", "gating", "lambda", "lambdas"}
BEFORE_O = {"o", "out", "output", "inner", "sub", "subln"}
# A bias, and maps of positions, are added to the product of queries and keys.
NOT_BETWEEN = {"bias", "biases"} | PLACES
GLUED = re.compile(r"^(q|k|qk)(?=(norm|ln|layernorm)$)")


def with_norms(
    parameters: Mapping[str, Parameter],
    tensors: Mapping[str, Tensor],
    family: Family,
    towers: Towers,
    near: Neighbours | None = None,
) -> dict[str, Parameter]:
    """The parameters, each with the norm that is between it and the next map of its attention.

    Parameters
    ----------
    tensors
        All weights of the model by plain name, vectors included.
    near
        Their neighbours, if they are known.
    """
    near = near or Neighbours(tensors)
    with_more = {one.module for one in parameters.values() if one.role == "other"}
    found = dict(parameters)
    known = *family.norms, *known_norms()
    roles = {"o", *CALLED, *(role for table in known for role in table.beside)}
    concerned = {name: one for name, one in parameters.items() if one.role in roles}
    maps = _maps([*parameters.values()]) if concerned else set()
    queries = {_parent(one): one for one in concerned.values() if one.role in ("q", "q_b")}
    for name, one in concerned.items():
        of_role = [table for table in known if one.role in table.beside]
        model_types, config = towers.model_of(one.module) if of_role else ((), {})
        tables = (table for table in of_role if table.applies(one.role, model_types, config))
        table = next(tables, None)
        module = "" if table is None else _beside(one, table.beside[one.role])
        norm = None if table is None else _stated(module, table, near)
        if not isinstance(norm, UnknownNorm):
            norm = _unknown(one, maps, module, near) or norm
        if one.role == "o" and not isinstance(norm, UnknownNorm):
            norm = _gate_in(queries.get(_parent(one)), with_more) or norm
        found[name] = one if norm is None else one._replace(norm=norm)
    return found


def _stated(module: str, table: NormTable, near: Neighbours) -> GainedNorm | UnknownNorm:
    """The norm that a table says is in a module."""
    held = {name.removeprefix(f"{module}."): tensor for name, tensor in near.within(module)}
    gain = next((held[leaf] for leaf in GAINS if leaf in held), None)
    if gain is None:
        return UnknownNorm("norm-missing", f"the gain of {module} is not in the checkpoint")
    if gain.dtype not in FLOATS or (table.kind == "rms" and "bias" in held):
        return UnknownNorm("norm-unknown", f"{module} is not a norm as its model has it: {ADVICE}")
    return GainedNorm(gain, table.offset, is_centred=table.kind == "layer")


def _unknown(
    one: Parameter, maps: Collection[str], norm: str, near: Neighbours
) -> UnknownNorm | None:
    """What else is beside a map and may be between it and another; None if there is nothing."""
    if one.role != "o" and one.role not in CALLED:
        return None
    parent = _parent(one)
    for name, tensor in near.within(parent):
        own = words(GLUED.sub(r"\1_", name.removeprefix(parent).lstrip(".").split(".")[0]))
        leaf = words(name.rpartition(".")[2])
        if own[:1] == ("b",) or {*own, *leaf} & NOT_BETWEEN:
            continue
        is_kernel = one.role in OF_HEADS and len(tensor.shape) > 2 and is_convolution(name)
        is_between = is_kernel or _is_called(one.role, {*own})
        if prod(tensor.shape) > 1 and is_between and not _is_of(maps, norm, name):
            is_gate = one.role == "o" and not {*own}.isdisjoint(GATES)
            advice = NO_GATES if is_gate else ADVICE
            message = f"what the model does with {name} is not known: {advice}"
            return UnknownNorm("norm-unknown", message)
    return None


def _is_called(role: str, own: set[str]) -> bool:
    """Whether a name speaks of what the map of a role gives or, if that is o, is given."""
    if role == "o":
        return bool(own & (GATES | BEFORE_O))
    called, half = CALLED[role]
    return bool(own & called) and own & HALVES == half


def _gate_in(queries: Parameter | None, with_more: Collection[str]) -> UnknownNorm | None:
    """What the rows of a map to queries that are not queries may be: a gate of the output.

    Parameters
    ----------
    with_more
        Modules with rows of no known role.
    """
    if queries is not None and queries.module in with_more:
        message = f"{queries.module} has other rows too, which may be a gate: {NO_GATES}"
        return UnknownNorm("norm-unknown", message)
    heads = None if queries is None else queries.heads
    if queries is None or heads is None or queries.shape[0] == heads.count * heads.size:
        return None
    return UnknownNorm(
        "config-mismatch",
        f"{queries.name} has {queries.shape[0]} rows, and the config states {heads.count} heads of "
        f"{heads.size}: some may be a gate, which has no place in a circuit",
    )


def _maps(parameters: Collection[Parameter]) -> set[str]:
    """Modules of the maps of a known role, without the gates of attentions."""
    gated = {_parent(one) for one in parameters if one.role == "down"}
    return {
        one.module
        for one in parameters
        if one.role != "other" and (one.role != "gate" or _parent(one) in gated)
    }


def _is_of(maps: Collection[str], norm: str, name: str) -> bool:
    """Whether a tensor belongs to one of the maps, or to the module of a norm."""
    return any(
        path == norm or path in maps
        for path in itertools.accumulate(name.split("."), "{}.{}".format)
    )


def _beside(one: Parameter, module: str) -> str:
    """Path of a module beside that of a map."""
    return f"{_parent(one)}.{module}".lstrip(".")


def _parent(one: Parameter) -> str:
    """Path of the module that the module of a map is in."""
    return one.module.rpartition(".")[0]
