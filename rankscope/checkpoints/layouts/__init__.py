"""On-disk layouts, one file each: a layout recognises a checkpoint by its files, and reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rankscope.checkpoints.layouts import huggingface, peft
from rankscope.checkpoints.layouts.layout import Layout

# The first that recognises a path reads it: the one that knows most about its files.
LAYOUTS: Mapping[str, Layout] = {
    "peft": peft.LAYOUT,
    "huggingface": huggingface.LAYOUT,
}


def layout_of(path: Path, forced: str | None = None) -> str | None:
    """Name of the layout that a folder or file is a checkpoint of; None if it is of none."""
    names = LAYOUTS if forced is None else {forced: LAYOUTS[forced]}
    is_file = path.is_file()
    for name, layout in names.items():
        if layout.is_file == is_file and layout.recognises(path):
            return name
    return None


def also_recognised(path: Path, chosen: str) -> list[str]:
    """Names of the other layouts that the same folder or file could be read as."""
    is_file = path.is_file()
    return [
        name
        for name, layout in LAYOUTS.items()
        if name != chosen and layout.is_file == is_file and layout.recognises(path)
    ]
