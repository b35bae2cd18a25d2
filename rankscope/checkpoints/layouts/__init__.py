"""On-disk layouts, one file each: a layout recognises a folder by its files, and reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.layouts import huggingface, peft


class Layout(Protocol):
    """What a file of this folder provides."""

    def recognises(self, folder: Path) -> bool:
        """Whether the folder is a checkpoint of this layout."""

    def read(self, folder: Path) -> Contents:
        """Read the headers of the checkpoint."""


# The first that recognises a folder reads it: an adapter's folder may hold a model's config too.
LAYOUTS: Mapping[str, Layout] = {"peft": peft, "huggingface": huggingface}
