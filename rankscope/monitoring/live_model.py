"""A model in memory, presented as one more checkpoint: names, shapes and adapters, no data."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from typing import TYPE_CHECKING, Any

from rankscope.checkpoints.adapters.peft_adapter import with_own_columns
from rankscope.checkpoints.adapters.peft_config import require_readable, with_patterns
from rankscope.checkpoints.adapters.scaling import Scales
from rankscope.checkpoints.adapters.separation import Parted, factors_among
from rankscope.checkpoints.adapters.wrapped_names import unwrapped
from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents, Skip
from rankscope.checkpoints.families.names import plain_name
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.tensors import DTYPES, FLOATS, StoredTensor
from rankscope.errors import RankscopeError

if TYPE_CHECKING:
    from torch import Tensor, nn

LIVE, GRADIENT = "live:", "gradient:"  # in place of the path of a file; the name follows
DTYPE_NAMES = {"float8_e4m3fn": "float8_e4m3"}
HELD = "base_layer"


@dataclass(frozen=True)
class Source:
    """Where a tensor is in the model: parameters may be replaced while it trains."""

    module: nn.Module
    attribute: str

    def tensor(self) -> Tensor | None:
        """The tensor as it is now; None if the module has none of this name any more."""
        return getattr(self.module, self.attribute, None)

    def gradient(self) -> Tensor | None:
        """What backward passes have added up in it; None before the first, or once it is reset."""
        return getattr(self.tensor(), "grad", None)


@dataclass(frozen=True)
class AdapterState:
    """What a layer with an adapter multiplies with now.

    Attributes
    ----------
    layer
        Name of the layer in the model.
    active
        Names of the adapters that it adds; none if they are merged or switched off. Rankscope's own
        have no name.
    scale
        Factor of B·A as the layer uses it; None if only the adapter's config states it.
    """

    layer: str
    active: tuple[str, ...]
    scale: float | None
    is_named: bool


@dataclass(frozen=True)
class LiveModel:
    """A model as it was when it was looked at.

    Attributes
    ----------
    contents
        Its parameters. Their tensors have the names of sources in place of paths.
    sources
        Where each tensor is, by that name.
    states
        The adapters that it had.
    """

    contents: Contents
    sources: Mapping[str, Source]
    states: tuple[AdapterState, ...]


def live_model(
    model: nn.Module, *, config: Mapping[str, Any] | None, options: Options
) -> LiveModel:
    """Look at a model; copies nothing.

    Parameters
    ----------
    config
        That of the model; None to take ``model.config``, if there is one.
    options
        Only the family counts.
    """
    about = config_of(model) if config is None else config
    states = tuple(adapter_states(model))
    sources: dict[str, Source] = {}
    tensors: dict[str, StoredTensor] = {}
    gradients: dict[str, StoredTensor] = {}
    skips = list[Skip]()
    for name, source, tensor in _iter_tensors(model):
        stored = _stored(LIVE, name, tensor)
        if isinstance(stored, Skip):
            skips.append(stored)
            continue
        tensors[name] = stored
        sources[stored.path] = source
        if tensor.requires_grad and stored.dtype in FLOATS:
            gradients[name] = replace(stored, path=GRADIENT + name)
            sources[GRADIENT + name] = source
    kept = _without_idle(tensors, states)
    parted = _parted(kept, states, about, options, model)
    # Frozen in place: a trained copy has the name of what it replaces.
    slopes = unwrapped({plain_name(n): t for n, t in gradients.items()}, {})
    contents = contents_of(
        "live",
        parted.tensors,
        about,
        options,
        adapters=parted.adapters,
        gradients=slopes,
        skips=(*skips, *parted.skips),
        notes=parted.notes,
        aside=parted.aside,
    )
    return LiveModel(contents, sources, states)


def config_of(model: object) -> dict[str, Any]:
    """The config that a model carries, below wrappers such as that of DDP; empty without one."""
    held: Any = model
    while held is not None and getattr(held, "config", None) is None:
        held = getattr(held, "module", None)
    config: Any = getattr(held, "config", None)
    if hasattr(config, "to_dict"):
        return dict(config.to_dict())
    if is_dataclass(config) and not isinstance(config, type):
        return asdict(config)
    return dict(config) if isinstance(config, Mapping) else {}


def adapter_states(model: nn.Module) -> Iterator[AdapterState]:
    """Every layer with an adapter of rankscope's trainer or of PEFT."""
    for name, module in model.named_modules():
        if hasattr(module, "merged_scale") and hasattr(module, "lora_A"):
            yield AdapterState(name, ("",), float(module.scale), is_named=False)
        elif _is_of_peft(module):
            yield _state_in_peft(name, module)


def _is_of_peft(module: object) -> bool:
    tuners = sys.modules.get("peft.tuners.tuners_utils")  # a program that uses it has loaded it
    return tuners is not None and isinstance(module, tuners.BaseTunerLayer)


def _state_in_peft(name: str, layer: Any) -> AdapterState:
    is_idle = layer.merged or layer.disable_adapters
    held = {key for kind in layer.adapter_layer_names for key in getattr(layer, kind, None) or {}}
    active = () if is_idle else tuple(one for one in layer.active_adapters if one in held)
    scale = None
    if hasattr(layer, "lora_A") and not hasattr(layer, "lora_E") and len(active) == 1:
        scale = float(layer.scaling[active[0]])
    return AdapterState(name, active, scale, is_named=True)


def _iter_tensors(model: nn.Module) -> Iterator[tuple[str, Source, Tensor]]:
    """Every parameter and persistent buffer once; of tied ones, the first."""
    seen = set[int]()
    for path, module in model.named_modules():
        transient = module._non_persistent_buffers_set
        buffers = {n: b for n, b in module._buffers.items() if n not in transient}
        for attribute, tensor in (*module._parameters.items(), *buffers.items()):
            if tensor is not None and id(tensor) not in seen:
                seen.add(id(tensor))
                name = f"{path}.{attribute}" if path else attribute
                yield name, Source(module, attribute), tensor


def dtype_of(tensor: Tensor) -> str:
    """Name of the numbers of a tensor, as in tables."""
    name = str(tensor.dtype).removeprefix("torch.")
    return DTYPE_NAMES.get(name, name)


def _stored(kind: str, name: str, tensor: Tensor) -> StoredTensor | Skip:
    """The tensor as if it were in a file; a skip where its numbers are not all here."""
    if hasattr(tensor, "placements"):
        return Skip("", name, "sharded", "is spread over processes: only a part of it is here")
    if tensor.device.type == "meta":
        return Skip("", name, "no-numbers", "is on the meta device, without numbers")
    if dtype_of(tensor) not in DTYPES:
        return Skip("", name, "unknown-format", f"holds {dtype_of(tensor)}, which is not read")
    try:
        shape = tuple(tensor.shape)
    except RuntimeError:  # of a lazy layer that has seen no input
        return Skip("", name, "no-numbers", "has no shape yet")
    return StoredTensor(kind + name, name, dtype_of(tensor), shape, 0)


def _without_idle(
    tensors: Mapping[str, StoredTensor], states: tuple[AdapterState, ...]
) -> dict[str, StoredTensor]:
    """The tensors without those of PEFT's adapters that are not in use."""
    kept = dict(tensors)
    for state in states:
        for name in [n for n in tensors if state.is_named and n.startswith(f"{state.layer}.")]:
            kind, _, rest = name.removeprefix(f"{state.layer}.").partition(".")
            if kind != HELD and rest.partition(".")[0] not in state.active:
                del kept[name]
    return kept


def _parted(
    tensors: Mapping[str, StoredTensor],
    states: tuple[AdapterState, ...],
    config: Mapping[str, Any],
    options: Options,
    model: nn.Module,
) -> Parted:
    """Weights and adapters, each with the scale that its layer uses now."""
    by_module = {plain_name(f"{state.layer}."): state for state in states if state.active}
    # Of an adapter that is merged or idle, only the name of the weight is left.
    plain = {plain_name(n).replace(f".{HELD}.", "."): tensor for n, tensor in tensors.items()}
    skips = list[Skip]()
    for prefix, state in by_module.items():
        why = _why_unknown(state, model)
        if why is not None:
            skips.append(Skip("", state.layer, *why))
            plain = {name: one for name, one in plain.items() if not name.startswith(prefix)}
    # Without a config, scales would be looked for in files beside the tensors.
    scales = Scales(_peft_config(model, states)) if states else None
    found = with_own_columns(factors_among(plain, options, config, scales=scales))
    adapters = {}
    for module, delta in found.adapters.items():
        known = by_module.get(f"{module}.")
        scale = None if known is None else known.scale
        adapters[module] = delta if scale is None else replace(delta, scale=scale)
    return replace(found, adapters=adapters, skips=(*skips, *found.skips))


def _why_unknown(state: AdapterState, model: nn.Module) -> tuple[str, str] | None:
    """Why it is not known what a layer multiplies with; None if it is."""
    if len(state.active) > 1:
        listing = ", ".join(state.active)
        return "several-adapters", f"adds several adapters at once ({listing}), which is not read"
    if not state.is_named:
        return None
    try:
        require_readable(_peft_config(model, (state,)))
    except RankscopeError as error:
        return error.reason, error.message
    return None


def _peft_config(model: nn.Module, states: tuple[AdapterState, ...]) -> dict[str, Any]:
    """Config of the active PEFT adapter; empty if there is none."""
    active = next((state.active[0] for state in states if state.is_named and state.active), None)
    holder: Any = next((m for m in model.modules() if hasattr(m, "peft_config")), None)
    if active is None or holder is None or active not in holder.peft_config:
        return {}
    config = holder.peft_config[active].to_dict()
    kind = config.get("peft_type")
    return with_patterns({**config, "peft_type": getattr(kind, "value", kind)})
