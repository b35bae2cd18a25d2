"""PEFT adapters that stand alone: a folder with ``adapter_config.json`` and no model."""

from __future__ import annotations

from pathlib import Path

from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.files.json_file import read_json
from rankscope.checkpoints.layouts import huggingface, lora_files
from rankscope.checkpoints.layouts.layout import Layout
from rankscope.checkpoints.options import Options


def recognises(folder: Path) -> bool:
    """Whether the folder itself is an adapter."""
    return (folder / lora_files.CONFIG).is_file()


def read(folder: Path, options: Options) -> Contents:
    """Read an adapter, on top of the model that it belongs to if that is on this machine.

    Raises
    ------
    RankscopeError
        If a file of either is damaged.
    """
    adapters, skips = lora_files.read_adapters(folder)
    base = lora_files.base_folder(folder)
    if base is None or not huggingface.recognises(base):
        return contents_of("peft", {}, {}, options, adapters=adapters, skips=skips)
    tensors = huggingface.open_weights(base)
    return contents_of(
        "peft",
        tensors,
        read_json(base / "config.json"),
        options,
        adapters=lora_files.fitting(adapters, tensors),
        skips=(*skips, *lora_files.misfits(adapters, tensors)),
    )


LAYOUT = Layout(
    "PEFT: adapter_config.json with adapter_model.safetensors, with or without its base model",
    recognises,
    read,
)
