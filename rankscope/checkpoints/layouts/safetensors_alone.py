"""A safetensors file by itself, with the ``config.json`` beside it if there is one."""

from __future__ import annotations

from pathlib import Path

from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.files.safetensors_file import MAX_HEADER, open_tensors
from rankscope.checkpoints.layouts.layout import Layout
from rankscope.checkpoints.layouts.single_file import (
    config_beside,
    first_bytes,
    may_be_model,
    step_in_file_name,
)
from rankscope.checkpoints.options import Options


def recognises(path: Path) -> bool:
    """Whether the name is that of weights, and the file starts with the length of a JSON header."""
    if not may_be_model(path, ".safetensors"):
        return False
    start, size = first_bytes(path, 9)
    length = int.from_bytes(start[:8], "little")
    return start[8:] == b"{" and length <= min(MAX_HEADER, size - 8)


def read(path: Path, options: Options) -> Contents:
    """List the tensors of the file.

    Raises
    ------
    RankscopeError
        If the file is damaged.
    """
    return contents_of("safetensors", open_tensors(path), config_beside(path), options)


LAYOUT = Layout(
    "safetensors: one *.safetensors file by itself, no shard and no adapter",
    recognises,
    read,
    step_in_file_name,
    is_file=True,
)
