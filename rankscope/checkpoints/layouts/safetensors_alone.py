"""A safetensors file by itself, with the ``config.json`` beside it if there is one."""

from __future__ import annotations

from pathlib import Path

from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.files.config_files import config_beside
from rankscope.checkpoints.files.file_names import may_be_model
from rankscope.checkpoints.files.kinds import DAMAGED, kind_of
from rankscope.checkpoints.files.opened_file import whole
from rankscope.checkpoints.files.safetensors_file import is_own_store
from rankscope.checkpoints.files.weights_file import open_file
from rankscope.checkpoints.layouts.layout import Layout, step_in_file_name
from rankscope.checkpoints.options import Options


def recognises(path: Path) -> bool:
    """Whether the name may be that of weights and the content is safetensors, or damaged."""
    if not may_be_model(path):
        return False
    kind = kind_of(path)
    if kind == "safetensors":
        return not is_own_store(path)
    return path.suffix.lower() == ".safetensors" and kind in DAMAGED


def read(path: Path, options: Options) -> Contents:
    """List the tensors of the file.

    Raises
    ------
    RankscopeError
        If the file is damaged.
    """
    opened = whole(open_file(path), str(path))
    return contents_of(
        "safetensors",
        opened.tensors,
        config_beside(path),
        options,
        skips=opened.skips,
        aside=opened.aside,
    )


LAYOUT = Layout(
    "safetensors: one *.safetensors file by itself, neither a shard nor an adapter",
    recognises,
    read,
    step_in_file_name,
    is_file=True,
)
