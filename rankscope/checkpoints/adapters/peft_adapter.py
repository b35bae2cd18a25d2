"""A PEFT adapter: its deltas, and what they make of the weights of its base model."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path

from rankscope.checkpoints.account import Classed
from rankscope.checkpoints.adapters.peft_config import (
    CONFIG,
    change_of_base,
    is_stack,
    read_config,
)
from rankscope.checkpoints.adapters.product_forms import with_columns
from rankscope.checkpoints.adapters.scaling import Scales
from rankscope.checkpoints.adapters.separation import Parted, factors_among
from rankscope.checkpoints.contents import Adapter, Skip
from rankscope.checkpoints.families.names import block_of, plain_name
from rankscope.checkpoints.families.quantised import without_quantised
from rankscope.checkpoints.files.weights_file import open_weights_file
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.tensors import FLOATS, Tensor
from rankscope.errors import RankscopeError

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin", "adapter_model.pt")
# Modules of ViT, DeiT, BEiT, Swin, DINOv2, of models of text and images, and others. Files and
# transformers 5, in memory, where PEFT puts adapters, call them differently: both names become one.
RENAMED = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"\bencoder\.layer\.", "layers."),
        (r"\battention\.(?:attention|self)\.query$", "attention.q_proj"),
        (r"\battention\.(?:attention|self)\.key$", "attention.k_proj"),
        (r"\battention\.(?:attention|self)\.value$", "attention.v_proj"),
        (r"\battention\.output\.dense$", "attention.o_proj"),
        (r"\bintermediate\.dense$", "mlp.fc1"),
        (r"\boutput\.dense$", "mlp.fc2"),
        (r"^language_model\.lm_head$", "lm_head"),
        (r"^(?:language_model\.model|model\.language_model)\.", "model."),
        (r"^model\.(?=(?:vision_tower|visual|multi_modal_projector)\.)", ""),
    )
)
# Modules that read the same inputs, as their names say, so that all are as wide as the widest.
READ_ALIKE = (
    *("q_proj", "k_proj", "v_proj", "query", "key", "value", "q_lin", "k_lin", "v_lin"),
    *("q", "k", "v", "wq", "wk", "wv"),
)


def is_adapter(folder: Path) -> bool:
    """Whether a folder is an adapter, whole or not: one of its files is there, if only by name.

    While it is being written, the weights that it changes are not yet those of the model.
    """
    return any(os.path.lexists(folder / name) for name in (CONFIG, *WEIGHTS))


def read_adapter(folder: Path, options: Options) -> Parted:
    """Read the headers of a PEFT adapter.

    Raises
    ------
    RankscopeError
        If the adapter is of a type that is not read, or its weights are missing or damaged.
    """
    config = read_config(folder)
    path = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise RankscopeError(f"has no {' and no '.join(WEIGHTS[:2])}", path=folder)
    tensors = open_weights_file(path, trust=options.trust_pickle)
    plain = {plain_name(name): tensor for name, tensor in tensors.items()}
    found = factors_among(plain, options, {}, scales=Scales(config) if config else None)
    adapters, apart, skips, aside = dict(found.adapters), set(found.apart), [], []
    change = change_of_base(config)
    for module, delta in found.adapters.items():
        if isinstance(delta, Adapter) and is_stack(config, module, rank=delta.rank):
            message = "holds the factors of several experts in one tensor, which is not read"
            target = module.replace(".base_layer", "")
            apart.add(target)
            skips.append(Skip(str(path), target, "target-parameters", message))
            aside += [Classed(one, "not understood", message) for one in delta.tensors]
            del adapters[module]
        elif change is not None:
            apart.add(module)
            skips.append(Skip(str(path), module, *change))
    return replace(
        found,
        adapters=adapters,
        apart=frozenset(apart),
        skips=(*found.skips, *skips),
        aside=(*aside, *found.aside),
    )


def on_base(found: Parted, base: Mapping[str, Tensor]) -> Parted:
    """The weights of the base model with those that the adapter replaces, and the deltas.

    A weight that is not base plus delta, as with PiSSA, is not among them: only its delta is.

    Parameters
    ----------
    base
        By name as stored; empty if there is none, so that every delta stands alone.
    """
    weights = {plain_name(name): tensor for name, tensor in base.items()}
    if found == Parted():
        return replace(found, tensors=weights)
    wanted = {*found.adapters, *map(_module, found.tensors)}
    stored = _stored_name(wanted, _modules(weights))
    # Without the other half of its adapter, a weight is not what the model multiplies with.
    halves = {skip.tensor for skip in found.skips if skip.reason == "adapter-incomplete"}
    apart = {name for module in found.apart | halves for name in (module, stored(module))}
    aside = []
    for name, tensor in found.tensors.items():
        ending = name.removeprefix(_module(name))
        target = f"{stored(_module(name))}{ending}"
        if target in weights:
            reason = "its trained copy is used instead"
            aside.append(Classed(weights[target], "no linear map", reason))
        weights[target] = tensor
    held = _modules(weights)
    adapters, skips = {}, []
    for module, adapter in found.adapters.items():
        if not base or stored(module) in held or module in found.apart:
            adapters[stored(module)] = adapter
        else:
            message = "its delta belongs to a weight that is missing"
            skips.append(Skip(adapter.tensors[0].paths[0], module, "adapter-misfit", message))
            aside += [Classed(one, "not understood", message) for one in adapter.tensors]
    joined = replace(
        found,
        tensors={n: t for n, t in weights.items() if not _is_below(n, apart)},
        adapters=adapters,
        uncut=frozenset(map(stored, found.uncut)),
        skips=(*found.skips, *skips),
        aside=(*found.aside, *aside, *_left_by(weights, apart)),
    )
    return with_own_columns(joined)


def misfit(found: Parted, base: Mapping[str, Tensor]) -> str:
    """What shows that this is not the base model of an adapter; empty if it may be.

    It is not if most modules of the adapter are missing from it, or have other shapes. The shapes
    of packed numbers say nothing, and neither does a module whose weight is in the adapter's file,
    such as an embedding of another size.
    """
    plain = {plain_name(name): tensor for name, tensor in base.items()}
    weights = {_module(name): tensor for name, tensor in plain.items()}
    held = _modules(plain)
    stored = _stored_name({*found.adapters}, held)
    without = found.uncut | found.apart | set(map(_module, found.tensors))
    deltas = {module: delta for module, delta in found.adapters.items() if module not in without}
    known = [module for module in deltas if stored(module) in held]
    if 2 * len(known) < len(deltas):
        example = next(module for module in deltas if stored(module) not in held)
        return f"it lacks {len(deltas) - len(known)} of {len(deltas)} modules, such as {example}"
    shaped = {module: weights[stored(module)] for module in known if stored(module) in weights}
    wrong = [m for m, weight in shaped.items() if not _may_fit(deltas[m].shape, weight)]
    if 2 * len(wrong) > len(known):
        module = wrong[0]
        delta, weight = list(deltas[module].shape), list(shaped[module].shape)
        return f"{module} is {weight} and its delta {delta}"
    return ""


def _may_fit(delta: tuple[int, ...], weight: Tensor) -> bool:
    """Whether a delta may be of a weight, which may be transposed, a convolution or packed."""
    if weight.dtype not in FLOATS or len(weight.shape) == 3:
        return True
    flat = (weight.shape[0], prod(weight.shape[1:]))
    return delta in (flat, flat[::-1])


def with_own_columns(found: Parted) -> Parted:
    """Give the deltas of VeRA the number of columns of their weights.

    Without the weights, all have the columns of the widest module. That is right for one kind of
    module, and for modules that read the same inputs. Others are left out.
    """
    adapters, skips, aside = dict(found.adapters), [], []
    kinds = {module.rpartition(".")[2] for module in found.uncut}
    for module in found.uncut & adapters.keys():
        delta, weight = adapters[module], found.tensors.get(f"{module}.weight")
        if isinstance(delta, Adapter) and weight is not None:
            adapters[module] = with_columns(delta, prod(weight.shape) // delta.shape[0])
        elif len(kinds) > 1 and not kinds <= {*READ_ALIKE}:
            message = "it has as many inputs as its weight, which is missing"
            skips.append(Skip(delta.tensors[0].paths[0], module, "adapter-inputs", message))
            aside += [Classed(one, "not understood", message) for one in delta.tensors]
            del adapters[module]
    return replace(
        found,
        adapters=adapters,
        uncut=frozenset(),
        skips=(*found.skips, *skips),
        aside=(*found.aside, *aside),
    )


def without_factors(
    tensors: Mapping[str, Tensor],
) -> tuple[dict[str, Tensor], list[Classed]]:
    """The weights of a model that was saved with its adapters inside, and the adapters' tensors."""
    plain = {plain_name(name): tensor for name, tensor in tensors.items()}
    reason = "of an adapter that is read elsewhere or was merged"
    factors = [Classed(t, "part of", reason) for name, t in plain.items() if ".lora_" in name]
    weights = {name: tensor for name, tensor in plain.items() if ".lora_" not in name}
    return {name.replace(".base_layer.", "."): t for name, t in weights.items()}, factors


def _left_by(weights: Mapping[str, Tensor], apart: Collection[str]) -> list[Classed]:
    reason = "is not the weight that the model uses: its adapter is not its base plus a delta"
    below = (tensor for name, tensor in weights.items() if _is_below(name, apart))
    return [Classed(tensor, "not understood", reason) for tensor in below]


def _module(name: str) -> str:
    return name.removesuffix(".weight")


def _modules(tensors: Mapping[str, Tensor]) -> set[str]:
    """Modules with a weight, which may be quantised and under the name of its scheme."""
    quantised = (skip.tensor for skip in without_quantised(tensors, {}).skips)
    return {*map(_module, tensors), *(name.rpartition(".")[0] for name in quantised)}


def _stored_name(wanted: Collection[str], held: Collection[str]) -> Callable[[str], str]:
    """From the path of a module in memory to that in the base's file.

    A class of models may wrap another, so that one of the two paths has one more part at its
    beginning, the same for all modules (``transformer`` of GPT-2). And transformers calls some
    modules otherwise in memory than in files: paths are compared as they are in memory.
    """
    in_memory = {_in_memory(name): name for name in held}
    first = Counter(name.partition(".")[0] for name in held).most_common(1)
    above = "".join(f"{part}." for part, _ in first)
    ways: list[Callable[[str], str]] = [
        lambda name: name,
        lambda name: name.partition(".")[2],
        lambda name: f"{above}{name}",
    ]
    way = max(ways, key=lambda way: sum(_in_memory(way(name)) in in_memory for name in wanted))

    def stored(name: str) -> str:
        if name in held:
            return name
        return in_memory.get(_in_memory(way(name)), name)

    return stored


def _in_memory(path: str) -> str:
    """Path of a module as transformers 5 has it in memory, from that in the file of a model."""
    for pattern, name in RENAMED:
        path = pattern.sub(name, path)
    return path


def _is_below(name: str, modules: Collection[str]) -> bool:
    """Whether a tensor belongs to one of these modules, or to the experts in one of them."""
    parts = name.split(".")
    if any(".".join(parts[:end]) in modules for end in range(1, len(parts) + 1)):
        return True
    # transformers uses another name for a block of experts in memory than in files.
    return "experts" in parts and any(
        module.endswith(".experts") and block_of(module) == block_of(name) for module in modules
    )
