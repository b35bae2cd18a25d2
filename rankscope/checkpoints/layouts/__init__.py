"""On-disk layouts, one file each: a layout recognises a checkpoint by its files and reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rankscope.checkpoints.layouts import (
    axolotl_relora,
    deepspeed,
    distributed,
    guitaricet_relora,
    huggingface,
    lightning,
    litgpt,
    nanochat,
    nanogpt,
    numpy_archive,
    olmo_v1,
    peft,
    pico,
    safetensors_alone,
    slices,
    torch_object,
)
from rankscope.checkpoints.layouts.layout import Layout

# The first that recognises a path reads it, so those that know most about their files come first.
LAYOUTS: Mapping[str, Layout] = {
    "relora": guitaricet_relora.LAYOUT,
    "pico": pico.LAYOUT,
    "axolotl-relora": axolotl_relora.LAYOUT,
    "peft": peft.LAYOUT,
    "deepspeed": deepspeed.LAYOUT,
    "litgpt": litgpt.LAYOUT,
    "olmo_v1": olmo_v1.LAYOUT,
    "huggingface": huggingface.LAYOUT,
    "dcp": distributed.LAYOUT,
    "slices": slices.LAYOUT,
    "nanogpt": nanogpt.LAYOUT,
    "nanochat": nanochat.LAYOUT,
    "lightning": lightning.LAYOUT,
    "torch": torch_object.LAYOUT,
    "safetensors": safetensors_alone.LAYOUT,
    "numpy": numpy_archive.LAYOUT,
}


def layout_of(path: Path, forced: str | None = None) -> str | None:
    """Name of the layout that a folder or file is a checkpoint of; None if it is not a checkpoint.

    Of the slices of one checkpoint only the first file, which represents all of them, counts.
    """
    names = LAYOUTS if forced is None else {forced: LAYOUTS[forced]}
    is_file = path.is_file()
    if forced in (None, "slices") and slices.is_another_slice(path):
        return None
    for name, layout in names.items():
        if layout.is_file in (is_file, None) and layout.recognises(path):
            return name
    return None


def also_recognised(path: Path, chosen: str) -> list[str]:
    """Names of the other layouts that the same folder or file could be read as."""
    is_file = path.is_file()
    return [
        name
        for name, layout in LAYOUTS.items()
        if name != chosen and layout.is_file in (is_file, None) and layout.recognises(path)
    ]
