"""The files of a PEFT adapter: its deltas, and what else is saved with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rankscope.checkpoints.account import Classed
from rankscope.checkpoints.adapters.parted import Parted
from rankscope.checkpoints.adapters.peft_config import change_of_base, is_stack, read_config
from rankscope.checkpoints.adapters.scaling import Scales
from rankscope.checkpoints.adapters.separation import factors_among
from rankscope.checkpoints.contents import Adapter, Skip
from rankscope.checkpoints.families.names import plain_name
from rankscope.checkpoints.files.weights_file import open_weights_file
from rankscope.checkpoints.options import Options
from rankscope.errors import RankscopeError

WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin", "adapter_model.pt")


def read_adapter(folder: Path, options: Options) -> Parted:
    """Read the headers of an adapter.

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
            message = "holds the factors of several experts in one: they are not told apart"
            place = module.replace(".base_layer", "")
            apart.add(place)
            skips.append(Skip(str(path), place, "target-parameters", message))
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
