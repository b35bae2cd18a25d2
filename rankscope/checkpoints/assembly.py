"""From named tensors and a config to `Contents`: what every layout ends with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rankscope.checkpoints.account import Classed, account_of, roots
from rankscope.checkpoints.adapters.adapted_family import adapted_family
from rankscope.checkpoints.adapters.derived_tensors import is_derived
from rankscope.checkpoints.adapters.grouping import cells_of, tables_of
from rankscope.checkpoints.adapters.parted import Parted
from rankscope.checkpoints.adapters.separation import factors_among
from rankscope.checkpoints.adapters.unknown_pairs import unknown_pairs
from rankscope.checkpoints.contents import Contents, Delta, Parameter, Skip, is_rescaled
from rankscope.checkpoints.families.family import GENERIC, Family, family_of
from rankscope.checkpoints.families.heads import heads_of
from rankscope.checkpoints.families.names import plain_name
from rankscope.checkpoints.families.parameters import parameters_of
from rankscope.checkpoints.families.quantised import without_quantised
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.tensors import Tensor

HALF_GRADIENT = "the gradient of a factor, which is not that of its matrix"


def contents_of(
    layout: str,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    options: Options,
    *,
    adapters: Mapping[str, Delta] | None = None,
    gradients: Mapping[str, Tensor] | None = None,
    skips: Sequence[Skip] = (),
    notes: Sequence[Skip] = (),
    aside: Sequence[Classed] = (),
    restarts: int | None = None,
    named: str | None = None,
) -> Contents:
    """Tell family and heads, and turn the tensors into parameters.

    Parameters
    ----------
    layout
        Name of the layout that read them.
    tensors, gradients
        By name as stored.
    config
        What the model's config says, under any of the names that configs have; empty if nothing.
    adapters
        By the module that each belongs to, in plain names.
    skips
        What the layout itself left out.
    notes
        What the layout has to say although nothing is missing.
    aside
        Stored tensors that the layout keeps from being parameters, each in its class.
    restarts
        How often the adapters had been merged and started anew, where the layout records it.
    named
        What the config of adapters calls the model that they were put on.
    """
    plain = {plain_name(name): tensor for name, tensor in tensors.items()}
    made = factors_among(plain, options, config)
    deltas = {**made.adapters, **(adapters or {})}
    plain, quantised = without_quantised(made.tensors, config)
    family = options.family or _family(plain, made, deltas, config, named)
    doubtful = unknown_pairs(plain, family)
    plain = {n: t for n, t in plain.items() if n not in doubtful}
    heads = heads_of(config, family)
    found = parameters_of(plain, family, heads, deltas, made.factors)
    pushed = {plain_name(name): tensor for name, tensor in (gradients or {}).items()}
    halves = {name for cell in cells_of(pushed, tables_of(options)) for name in cell.names.values()}
    aside = [*aside, *(Classed(pushed.pop(n), "part of", HALF_GRADIENT) for n in halves)]
    pushing = parameters_of(pushed, family, heads)
    factors = [factor for delta in deltas.values() for factor in delta.tensors]
    aside = [*aside, *made.aside]
    stored = [
        *(root for tensor in (*tensors.values(), *factors) for root in roots(tensor)),
        *(gradients or {}).values(),
        *(root for one in aside for root in roots(one.tensor)),
    ]
    parameters = (*found.parameters.values(), *pushing.parameters.values())
    classed = [
        *_unused(deltas, parameters),
        *(Classed(root, one.kind, one.reason) for one in aside for root in roots(one.tensor)),
        *(Classed(plain[n], "no linear map", why) for n, why in found.left_out.items()),
        *(Classed(pushed[n], "no linear map", why) for n, why in pushing.left_out.items()),
    ]
    skips = (*skips, *made.skips, *quantised, *doubtful.values(), *found.skips)
    account, unnamed = account_of(stored, classed, parameters, skips)
    return Contents(
        layout=layout,
        family=family.name,
        parameters=found.parameters,
        gradients=pushing.parameters,
        heads=heads,
        skips=(*skips, *unnamed),
        account=account,
        notes=(*notes, *made.notes, *_alone(found.parameters)),
        base_named=named,
        restarts=restarts,
    )


def _family(
    plain: Mapping[str, Tensor],
    made: Parted,
    deltas: Mapping[str, Delta],
    config: Mapping[str, Any],
    named: str | None,
) -> Family:
    """Family of the model; of factors alone, the one that knows most of their modules."""
    changed: dict[str, tuple[int, ...]] = {m: delta.shape for m, delta in deltas.items()}
    changed |= {module: factor.shape for module, factor in made.factors.values()}
    changed |= {n.removesuffix(".weight"): t.shape for n, t in plain.items() if is_derived(t)}
    # A stored tensor may be transposed, which its adapter is not: it decides the family.
    modules = changed | {name.removesuffix(".weight"): t.shape for name, t in plain.items()}
    family = family_of(config, {m: s for m, s in modules.items() if len(s) > 1})
    if family.name != GENERIC or not changed:
        return family
    return adapted_family(changed, named or str(config.get("model_type") or ""))


def _unused(deltas: Mapping[str, Delta], parameters: Iterable[Parameter]) -> Iterator[Classed]:
    """Tensors of deltas that no parameter has, since they do not fit: a skip names the module."""
    used = {
        (root.paths, root.name)
        for parameter in parameters
        if parameter.adapter is not None
        for tensor in parameter.adapter.tensors
        for root in roots(tensor)
    }
    for module, delta in deltas.items():
        for root in (root for tensor in delta.tensors for root in roots(tensor)):
            if (root.paths, root.name) not in used:
                reason = f"is of a delta that does not fit the weight of {module}"
                yield Classed(root, "not understood", reason)


def _alone(parameters: Mapping[str, Parameter]) -> tuple[Skip, ...]:
    """A line on deltas that DoRA rescales, of which the weights are not there."""
    alone = [p for p in parameters.values() if p.tensor is None and is_rescaled(p.adapter)]
    if not alone:
        return ()
    message = (
        f"{len(alone)} adapters are DoRA's, which rescales the rows of the weight: without their "
        "base only B·A is measured"
    )
    path = "" if alone[0].adapter is None else alone[0].adapter.tensors[0].paths[0]
    return (Skip(path, "", "dora", message),)
