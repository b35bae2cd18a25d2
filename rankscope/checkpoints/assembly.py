"""From named tensors and a config to `Contents`: what every layout ends with."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from rankscope.checkpoints.account import Classed, Rest, account_of, roots
from rankscope.checkpoints.contents import Adapter, Contents, Parameter, Skip
from rankscope.checkpoints.families.heads import Towers
from rankscope.checkpoints.families.names import plain_name
from rankscope.checkpoints.families.parameters import parameters_of
from rankscope.checkpoints.families.places import Places
from rankscope.checkpoints.families.quantised import without_quantised
from rankscope.checkpoints.families.recognition import family_of, family_of_deltas
from rankscope.checkpoints.families.reparametrised import without_reparametrised
from rankscope.checkpoints.families.stacks import unstacked
from rankscope.checkpoints.families.tower_families import with_towers
from rankscope.checkpoints.files.opened_file import out_of_reach
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.tensors import Tensor, is_same_storage


def contents_of(
    layout: str,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    options: Options,
    *,
    adapters: Mapping[str, Adapter] | None = None,
    gradients: Mapping[str, Tensor] | None = None,
    skips: Sequence[Skip] = (),
    notes: Sequence[Skip] = (),
    aside: Sequence[Classed] = (),
    restarts: int | None = None,
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
    """
    stages = [_by_plain_name(tensors)]
    for stage in (without_reparametrised, without_quantised, unstacked):
        stages.append(stage(stages[-1].tensors, config))
    weights = stages[-1].tensors
    unread = {name: why for name, one in weights.items() if (why := out_of_reach(name, one))}
    skips = (
        *skips,
        *(Skip(weights[n].paths[0], weights[n].name, *why) for n, why in unread.items()),
    )
    weights = {name: tensor for name, tensor in weights.items() if name not in unread}
    # A stored tensor may be transposed, which its adapter is not: it tells the family.
    modules: dict[str, tuple[int, ...]] = {m: a.shape for m, a in (adapters or {}).items()}
    modules |= {name.removesuffix(".weight"): tensor.shape for name, tensor in weights.items()}
    shapes = {module: shape for module, shape in modules.items() if len(shape) > 1}
    held = {name.removesuffix(".weight") for name in weights}
    alone = bool(adapters) and held.isdisjoint(adapters or ())
    family = options.family or with_towers(
        (family_of_deltas if alone else family_of)(config, shapes), shapes
    )
    towers = Towers(config, family)
    pushed = _by_plain_name(gradients or {})
    places = Places({**pushed.tensors, **weights}, family, towers, adapters or ())
    found = parameters_of(weights, family, towers, adapters, places=places)
    pushing = parameters_of(pushed.tensors, family, towers, places=places)
    factors = [f for a in (adapters or {}).values() for f in (a.lora_A, a.lora_B)]
    stored = [
        *(root for tensor in (*tensors.values(), *factors) for root in roots(tensor)),
        *(gradients or {}).values(),
        *(one.tensor for one in aside),
    ]
    stages += [found.others, pushed, pushing.others]
    classed = [*aside, *(one for stage in stages for one in stage.classed)]
    skips = (*skips, *(skip for stage in stages for skip in stage.skips))
    parameters = (*found.parameters.values(), *pushing.parameters.values())
    account, unnamed = account_of(stored, classed, parameters, skips)
    return Contents(
        layout=layout,
        family=family.name,
        parameters=found.parameters,
        gradients=pushing.parameters,
        heads=towers.main,
        skips=(*skips, *unnamed),
        account=account,
        notes=(*notes, *_on_roles(found.parameters.values(), family.name)),
        restarts=restarts,
    )


def _by_plain_name(tensors: Mapping[str, Tensor]) -> Rest:
    """The tensors by name without what wrappers put into it; of two with one name, the first.

    A compiled model is often saved together with the model that it was made of.
    """
    plain: dict[str, Tensor] = {}
    classed, skips = [], []
    for name, tensor in tensors.items():
        first = plain.setdefault(plain_name(name), tensor)
        if is_same_storage(first, tensor) and first is not tensor:
            classed.append(Classed(tensor, "part of", f"the same storage as {first.name}"))
        elif first is not tensor:
            message = f"has the name of {first.name} but for a wrapper, and other numbers"
            classed.append(Classed(tensor, "not understood", message))
            skips.append(Skip(tensor.paths[0], tensor.name, "same-name", message))
    return Rest(plain, tuple(classed), tuple(skips))


def _on_roles(parameters: Collection[Parameter], family: str) -> Iterator[Skip]:
    """A line where more than half of the matrices of a model have no known role."""
    unknown = [one for one in parameters if one.role == "other"]
    if 2 * len(unknown) > len(parameters):
        message = (
            f"{len(unknown)} of {len(parameters)} matrices have no role in the family {family}, as "
            f"{unknown[0].name}: the table of a family of your own names them"
        )
        yield Skip("", "", "roles-unknown", message)
