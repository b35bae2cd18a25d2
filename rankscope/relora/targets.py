"""Which layers of a model get an adapter."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from rankscope.errors import RankscopeError, WrongSettingError, printable

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
ALL = "all-linear"  # PEFT's word for all linear layers but the head
INDEX = re.compile(r"(?<![^.])\d+(?![^.])")  # of a block, as a part of a name


def target_layers(
    model: nn.Module, targets: str | Sequence[str] | None
) -> dict[str, nn.Linear | Conv1D]:
    """The layers that get an adapter, by name.

    Parameters
    ----------
    model
        Without adapters.
    targets
        A regular expression that fits whole names; or names, each of which also fits at the end of
        longer ones; or ``all-linear``. By default the linear layers inside the blocks, without the
        head; in a model without blocks, all.

    Raises
    ------
    WrongSettingError
        If nothing fits, or a layer that fits cannot have an adapter.
    """
    _require_outermost(model)
    faults = {name: _fault(layer) for name, layer in _iter_linear(model)}
    for name in set(_unread(model)) & faults.keys():
        faults[name] = "is read by nn.TransformerEncoderLayer, which bypasses it in evaluation"
    shared = _shared(model)
    for name in faults:
        weight = model.get_submodule(name)._parameters.get("weight")
        if not faults[name] and id(weight) in shared:
            faults[name] = "shares its weight with another module, as a tied head does"
    if not faults:
        raise WrongSettingError(f"{type(model).__name__} has no linear layer: nothing to adapt")
    if targets is None or targets == ALL:
        chosen = _default(model, [name for name, fault in faults.items() if not fault], targets)
    else:
        chosen = _chosen([name for name, _ in model.named_modules()], targets, faults)
    for name in chosen:
        kind = type(model.get_submodule(name)).__name__
        if fault := faults.get(name, f"is of the class {kind}, not a linear layer"):
            message = f"{printable(name)} cannot have an adapter: it {fault}; leave it out of"
            raise WrongSettingError(f"{message} `targets`")
    if not chosen:
        why = "; ".join(dict.fromkeys(filter(None, faults.values())))
        raise WrongSettingError(f"no layer can have an adapter: {why}; {_listed(faults)}")
    layers = {name: model.get_submodule(name) for name in chosen}
    return {n: one for n, one in layers.items() if isinstance(one, nn.Linear | Conv1D)}


def weight_shape(layer: nn.Linear | Conv1D) -> tuple[int, int]:
    """(out, in), however the weight is stored."""
    first, second = layer.weight.shape
    return (second, first) if isinstance(layer, Conv1D) else (first, second)


def named_for_peft(chosen: Collection[str], names: Collection[str]) -> str | list[str]:
    """What makes PEFT choose exactly these modules: the ends of their names, else an expression."""
    ends = {name.rpartition(".")[2] for name in chosen}
    if {name for name in names if name.rpartition(".")[2] in ends} == set(chosen):
        return sorted(ends)
    return "|".join(re.escape(name) for name in chosen)


def require_whole(weight: object, name: str) -> None:
    """Raise `RankscopeError` if a weight is not a whole tensor in this process."""
    is_sharded = any(hasattr(weight, mark) for mark in ("ds_id", "device_mesh"))
    if isinstance(weight, nn.Parameter) and not is_sharded and weight.dim() == 2:
        return
    message = "is sharded (FSDP, DeepSpeed ZeRO-3 or tensor parallel), which is not supported"
    raise RankscopeError(f"{message}: use DDP", tensor=name)


def _require_outermost(model: nn.Module) -> None:
    """Refuse a model that is a single layer, or whose names begin with those of a wrapper."""
    name = type(model).__name__
    if isinstance(model, nn.Linear | Conv1D):
        message = f"the model is a single layer ({name}), which is in no other module"
        raise WrongSettingError(f"{message}: give nn.Sequential(layer)")
    wrappers = nn.DataParallel, nn.parallel.DistributedDataParallel
    if isinstance(model, wrappers) or hasattr(model, "_orig_mod"):
        message = f"the model is in {name} already, which changes the names of its modules"
        raise WrongSettingError(f"{message}: `wrap` the model first, then compile or distribute it")


def _unread(model: nn.Module) -> Iterator[str]:
    """Linear layers whose weights torch's own encoder reads itself, where no gradient is wanted."""
    encoder = nn.TransformerEncoderLayer
    for name, module in model.named_modules():
        if isinstance(module, encoder) and type(module).forward is encoder.forward:
            yield from (f"{name}.{one}".removeprefix(".") for one in ("linear1", "linear2"))


def _iter_linear(model: nn.Module) -> Iterator[tuple[str, nn.Linear | Conv1D]]:
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear | Conv1D):
            yield name, layer


def _shared(model: nn.Module) -> set[int]:
    """Parameters that several modules use, or one module under several names."""
    uses = Counter(
        id(parameter)
        for _, module in model.named_modules(remove_duplicate=False)
        for parameter in module._parameters.values()
        if parameter is not None
    )
    return {one for one, count in uses.items() if count > 1}


def _fault(layer: nn.Linear | Conv1D) -> str:
    """Why a linear layer cannot have an adapter; empty if it can."""
    weight = layer._parameters.get("weight")
    if weight is None:
        return "is reparametrised, so its weight is computed"
    if isinstance(layer, nn.modules.linear.NonDynamicallyQuantizableLinear):
        return "is read by nn.MultiheadAttention, which does not call it"
    if weight.dtype not in DTYPES:
        return f"is stored as {weight.dtype}, which cannot be merged into".replace("torch.", "")
    if weight.is_meta or nn.parameter.is_lazy(weight):
        return "has no values yet"
    return ""


def _default(model: nn.Module, able: Sequence[str], targets: str | None) -> list[str]:
    """Linear layers inside the blocks, or all; never the head."""
    head = None
    if callable(find := getattr(model, "get_output_embeddings", None)):
        try:
            head = find()
        except NotImplementedError:  # a model without one
            head = None
    layers = [name for name in able if model.get_submodule(name) is not head]
    inside = [name for name in layers if INDEX.search(name)]
    return layers if targets == ALL else inside or layers


def _chosen(
    names: Sequence[str], targets: str | Sequence[str], faults: Mapping[str, str]
) -> list[str]:
    """Modules that the targets name, as PEFT matches them."""
    if isinstance(targets, str):
        try:
            fits = re.compile(targets).fullmatch
        except re.error as error:
            shown = printable(repr(targets), limit=80)
            raise WrongSettingError(
                f"`targets` {shown} is not a regular expression: {error}"
            ) from None
        chosen = [name for name in names if fits(name)]
        missing = [] if chosen else [targets]
    else:
        chosen = [n for n in names if any(f".{n}".endswith(f".{t}") for t in targets)]
        missing = [t for t in targets if not any(f".{n}".endswith(f".{t}") for n in names)]
    if missing or not chosen:
        shown = printable(repr(missing[0] if missing else targets), limit=80)
        raise WrongSettingError(f"`targets`: {shown} fits no module; {_listed(faults)}")
    return chosen


def _listed(faults: Mapping[str, str]) -> str:
    """The linear layers of a model, blocks of the same kind once."""
    kinds = dict.fromkeys(INDEX.sub("*", name) for name in faults)
    return f"its linear layers: {', '.join(kinds)}"
