"""PEFT adapters that stand alone: a folder with ``adapter_config.json`` and no model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rankscope.checkpoints.contents import Contents, Parameter
from rankscope.checkpoints.families import place_of
from rankscope.checkpoints.layouts import huggingface, lora_files


def recognises(folder: Path) -> bool:
    """Whether the folder itself is an adapter."""
    return (folder / lora_files.CONFIG).is_file()


def read(folder: Path) -> Contents:
    """Read an adapter, on top of the model that it belongs to if that is on this machine.

    Raises
    ------
    RankscopeError
        If a file of either is damaged.
    """
    adapters, skips = lora_files.read_adapters(folder)
    base = lora_files.base_folder(folder)
    if base is not None and huggingface.recognises(base):
        found, misfits = huggingface.read(base), list(skips)
        joined = lora_files.with_adapters(found.parameters, adapters, misfits)
        return replace(found, layout="peft", parameters=joined, skips=(*found.skips, *misfits))
    alone = {}
    for module, adapter in adapters.items():
        name = f"{module}.weight"
        place = place_of(name)
        if place is not None:
            alone[name] = Parameter(name, *place, tensor=None, adapter=adapter)
    return Contents("peft", "llama-like", alone, skips=skips)
