"""From named tensors and a config to `Contents`: the last step of every layout."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from rankscope.checkpoints.account import Classed, Rest, account_of, roots
from rankscope.checkpoints.adapters.composed_tensors import is_composed
from rankscope.checkpoints.adapters.grouping import cells_of, tables_of
from rankscope.checkpoints.adapters.separation import Parted, factors_among
from rankscope.checkpoints.adapters.unknown_pairs import unknown_pairs
from rankscope.checkpoints.contents import Contents, Delta, Parameter, Skip, is_rescaled
from rankscope.checkpoints.families.coordinates import Coordinates
from rankscope.checkpoints.families.family import GENERIC, Family
from rankscope.checkpoints.families.heads import Towers
from rankscope.checkpoints.families.names import plain_name, tower_of
from rankscope.checkpoints.families.neighbours import Neighbours
from rankscope.checkpoints.families.norms import with_norms
from rankscope.checkpoints.families.parameters import deltas_alone, parameters_of
from rankscope.checkpoints.families.quantised import without_quantised
from rankscope.checkpoints.families.recognition import (
    adapted_family,
    family_of,
    of_one_layer,
    with_towers,
)
from rankscope.checkpoints.families.reparametrised import without_reparametrised
from rankscope.checkpoints.families.rounded_in_use import rounded_in_use, without_rounding
from rankscope.checkpoints.families.stacks import unstacked
from rankscope.checkpoints.files.opened_file import Unread, out_of_reach
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.tensors import Tensor, is_same_storage

PARAMETRISED = ".parametrizations."
FEW = 4  # models with fewer modules get no note about roles

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
    """Recognise family and heads, and turn the tensors into parameters.

    Parameters
    ----------
    layout
        Name of the layout that read them.
    tensors, gradients
        By name as stored.
    config
        The config of the model, with any of the usual names of entries; empty if there is none.
    adapters
        By plain name of the module that each changes.
    skips
        What the layout itself left out.
    notes
        What the layout says although nothing is missing.
    aside
        Stored tensors that the layout does not make parameters of, each with its class.
    restarts
        How often the adapters had been merged and restarted, if the layout records that.
    named
        What the config of adapters calls the model that they were put on.
    """
    stages, parted = _weights(tensors, config, options)
    deltas = {**parted.adapters, **(adapters or {})}
    family = options.family or _family(stages[-1].tensors, parted, deltas, config, named=named)
    weights = stages[-1].tensors
    near = Neighbours(weights, family.tells_apart)
    doubtful = unknown_pairs(weights, family, near)
    if doubtful:
        weights = {name: tensor for name, tensor in weights.items() if name not in doubtful}
        near = Neighbours(weights, family.tells_apart)
    slopes = _gradients(gradients or {}, options)
    towers = Towers(config, family)
    is_all = not deltas and slopes.tensors.keys() <= weights.keys()
    coordinates = Coordinates(
        {**slopes.tensors, **weights},
        family,
        towers,
        deltas,
        first_alike=near.first_alike if is_all else None,
    )
    found = parameters_of(
        weights,
        family,
        towers,
        deltas,
        factors=parted.factors,
        coordinates=coordinates,
        near=near,
    )
    found_slopes = parameters_of(slopes.tensors, family, towers, coordinates=coordinates)
    stages += [slopes, found.others, found_slopes.others]
    parameters = (*found.parameters.values(), *found_slopes.parameters.values())
    aside = [
        Classed(root, one.kind, one.reason)
        for one in (*aside, *parted.aside)
        for root in roots(one.tensor)
    ]
    factors = [factor for delta in deltas.values() for factor in delta.tensors]
    stored = [
        *(root for tensor in (*tensors.values(), *factors) for root in roots(tensor)),
        *(gradients or {}).values(),
        *(one.tensor for one in aside),
    ]
    of_stages = (one for stage in stages for one in stage.classed)
    classed = [*_unused(deltas, parameters), *aside, *of_stages]
    skips = (
        *(*skips, *parted.skips, *doubtful.values()),
        *(skip for stage in stages for skip in stage.skips),
    )
    account, unnamed = account_of(stored, classed, parameters, skips)
    further = (
        *_on_roles(found.parameters.values(), family.name),
        *rounded_in_use({plain_name(name): tensor for name, tensor in tensors.items()}),
    )
    return Contents(
        layout=layout,
        family=family.name,
        parameters=with_norms(found.parameters, weights, family, towers, near),
        gradients=found_slopes.parameters,
        heads=towers.main,
        skips=(*skips, *unnamed),
        account=account,
        notes=(*notes, *parted.notes, *_alone(found.parameters), *further),
        base_named=named,
        restarts=restarts,
        of_deltas=partial(deltas_alone, family=family, towers=towers, coordinates=coordinates),
    )


def _weights(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], options: Options
) -> tuple[list[Rest], Parted]:
    """The stages up to the weights, which the last of them has; and what factors make."""
    stages = [_by_plain_name(tensors)]
    # Before factors: low-rank tensors beside packed numbers belong to those, and are not adapters.
    stages.append(_reparametrised(stages[-1].tensors, config, options))
    stages.append(without_quantised(stages[-1].tensors, config))
    stages.append(without_rounding(stages[-1].tensors))
    parted = factors_among(stages[-1].tensors, options, config)
    stages.append(_within_reach(parted.tensors))
    stages.append(unstacked(stages[-1].tensors, config))
    return stages, parted


def _gradients(gradients: Mapping[str, Tensor], options: Options) -> Rest:
    """The gradients by plain name, without those of single factors."""
    plain = _by_plain_name(gradients)
    cells = cells_of(plain.tensors, tables_of(options))
    halves = {name for cell in cells for name in cell.names.values()}
    return replace(
        plain,
        tensors={n: t for n, t in plain.tensors.items() if n not in halves},
        classed=(
            *plain.classed,
            *(Classed(plain.tensors[n], "part of", HALF_GRADIENT) for n in halves),
        ),
    )


def _reparametrised(
    tensors: Mapping[str, Tensor], config: Mapping[str, Any], options: Options
) -> Rest:
    """The weights of reparametrised modules, except adapters that are parametrisations."""
    if not any(PARAMETRISED in name for name in tensors):
        return without_reparametrised(tensors, config)
    names = (n for cell in cells_of(tensors, tables_of(options)) for n in cell.names.values())
    adapted = {n.partition(PARAMETRISED)[0] + PARAMETRISED for n in names if PARAMETRISED in n}
    apart = {n: t for n, t in tensors.items() if n.startswith(tuple(adapted))}
    rest = without_reparametrised({n: t for n, t in tensors.items() if n not in apart}, config)
    return replace(rest, tensors={**rest.tensors, **apart})


def _within_reach(tensors: Mapping[str, Tensor]) -> Rest:
    """The tensors without those whose numbers cannot be read, each of which has a skip."""
    may_be = {n: t for n, t in tensors.items() if isinstance(t, Unread) or 0 in t.shape}
    unread = {name: why for name, one in may_be.items() if (why := out_of_reach(name, one))}
    if not unread:
        return Rest({**tensors})
    skips = [Skip(tensors[n].paths[0], tensors[n].name, *why) for n, why in unread.items()]
    return Rest({n: t for n, t in tensors.items() if n not in unread}, skips=tuple(skips))


def _by_plain_name(tensors: Mapping[str, Tensor]) -> Rest:
    """The tensors by name without wrappers; of two with one name, the first.

    A compiled model is often saved together with the model that it was made from.
    """
    plain: dict[str, Tensor] = {}
    classed, skips = [], []
    for name, tensor in tensors.items():
        first = plain.setdefault(plain_name(name), tensor)
        if first is tensor:
            continue
        if is_same_storage(first, tensor):
            classed.append(Classed(tensor, "part of", f"the same storage as {first.name}"))
        else:
            message = f"has the name of {first.name} except for a wrapper, and different numbers"
            classed.append(Classed(tensor, "not understood", message))
            skips.append(Skip(tensor.paths[0], tensor.name, "same-name", message))
    return Rest(plain, tuple(classed), tuple(skips))


def _on_roles(parameters: Collection[Parameter], family: str) -> Iterator[Skip]:
    """A note if more than half of the modules of a model have no known role."""
    modules = {one.module: one.role for one in parameters}
    unknown = [module for module, role in modules.items() if role == "other"]
    if 2 * len(unknown) > len(modules) >= FEW:
        message = (
            f"{len(unknown)} of {len(modules)} modules have no role in the family {family}, such "
            f"as {unknown[0]}: a family file of your own can name them"
        )
        yield Skip("", "", "roles-unknown", message)


def _family(
    plain: Mapping[str, Tensor],
    parted: Parted,
    deltas: Mapping[str, Delta],
    config: Mapping[str, Any],
    *,
    named: str | None,
) -> Family:
    """Family of the model; for factors alone, the one that knows most of their modules."""
    changed: dict[str, tuple[int, ...]] = {m: delta.shape for m, delta in deltas.items()}
    changed |= {module: factor.shape for module, factor in parted.factors.values()}
    changed |= {n.removesuffix(".weight"): t.shape for n, t in plain.items() if is_composed(t)}
    # A stored tensor may be transposed, and its adapter is not: the shape of the tensor decides.
    modules = changed | {name.removesuffix(".weight"): t.shape for name, t in plain.items()}
    shapes = {module: shape for module, shape in modules.items() if len(shape) > 1}
    one_layer = of_one_layer(shapes)
    family = family_of(config, one_layer)
    if family.name == GENERIC and changed:
        family = adapted_family(changed, named or str(config.get("model_type") or ""))
    return with_towers(family, shapes) if len({*map(tower_of, one_layer)}) > 1 else family


def _unused(deltas: Mapping[str, Delta], parameters: Iterable[Parameter]) -> Iterator[Classed]:
    """Tensors of deltas that do not fit their weight; a skip names the module."""
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
                reason = f"belongs to a delta that does not fit the weight of {module}"
                yield Classed(root, "not understood", reason)


def _alone(parameters: Mapping[str, Parameter]) -> tuple[Skip, ...]:
    """A note on DoRA's deltas without the weights that they rescale."""
    alone = [p for p in parameters.values() if p.tensor is None and is_rescaled(p.adapter)]
    if not alone:
        return ()
    message = (
        f"{len(alone)} adapter{'s are' if len(alone) > 1 else ' is'} of DoRA, which rescales the "
        "rows of the weight: without the base model only B·A is measured"
    )
    path = "" if alone[0].adapter is None else alone[0].adapter.tensors[0].paths[0]
    return (Skip(path, "", "dora", message),)
