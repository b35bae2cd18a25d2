"""What an adapter makes of the weights of its base model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping

from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.families.names import block_of, plain_name
from rankscope.checkpoints.layouts.lora_files import SAVED, Lora
from rankscope.checkpoints.tensors import Tensor


def on_base(lora: Lora, base: Mapping[str, Tensor]) -> Lora:
    """The weights of the base model with what the adapter puts in their place, and its deltas.

    A weight that the two do not give, as with DoRA, is not among them: its delta then stands alone.

    Parameters
    ----------
    base
        By name as stored; empty where there is none, so that every delta stands alone.
    """
    weights = {plain_name(name): tensor for name, tensor in base.items()}
    stored = _stored_name({*lora.adapters, *map(_module, lora.weights)}, set(map(_module, weights)))
    apart = {name for module in lora.apart for name in (module, stored(module))}
    for name, tensor in lora.weights.items():
        ending = name.removeprefix(_module(name))
        weights[f"{stored(_module(name))}{ending}"] = tensor
    held = set(map(_module, weights))
    adapters, skips = {}, []
    for module, adapter in lora.adapters.items():
        if not base or stored(module) in held or module in lora.apart:
            adapters[stored(module)] = adapter
        else:
            message = "its delta belongs to a weight that is not there"
            skips.append(Skip(adapter.lora_A.paths[0], module, "adapter-misfit", message))
    known = {name: tensor for name, tensor in weights.items() if not _is_below(name, apart)}
    return Lora(adapters, known, lora.apart, (*lora.skips, *skips))


def without_factors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a model that was saved with its adapters in it, under the names they had."""
    plain = {plain_name(name): tensor for name, tensor in tensors.items()}
    return {SAVED.sub("", name): tensor for name, tensor in plain.items() if ".lora_" not in name}


def _module(name: str) -> str:
    return name.removesuffix(".weight")


def _stored_name(wanted: Collection[str], held: Collection[str]) -> Callable[[str], str]:
    """From a module's path in the model to that in the base's file.

    A class of models may wrap another one, so that one of the two paths has a part more at its
    beginning, as ``transformer`` with GPT-2: the same for all modules.
    """
    first = Counter(name.partition(".")[0] for name in held).most_common(1)
    above = "".join(f"{part}." for part, _ in first)
    ways: list[Callable[[str], str]] = [
        lambda name: name,
        lambda name: name.partition(".")[2],
        lambda name: f"{above}{name}",
    ]
    way = max(ways, key=lambda way: sum(way(name) in held for name in wanted))
    return lambda name: name if name in held or way(name) not in held else way(name)


def _is_below(name: str, modules: Collection[str]) -> bool:
    """Whether a tensor belongs to one of these modules, or to the experts that one of them is."""
    parts = name.split(".")
    if any(".".join(parts[:end]) in modules for end in range(1, len(parts) + 1)):
        return True
    # transformers names a block of experts otherwise in memory than in files.
    return "experts" in parts and any(
        module.endswith(".experts") and block_of(module) == block_of(name) for module in modules
    )
