"""A file of ``torch.save`` by itself: whatever it holds, the largest table of tensors in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents, Skip
from rankscope.checkpoints.files.pickles import Opaque
from rankscope.checkpoints.files.torch_file import (
    iter_leaves,
    largest_table,
    open_torch,
    refuse_pieces,
)
from rankscope.checkpoints.layouts.layout import Layout, Step
from rankscope.checkpoints.layouts.single_file import (
    config_beside,
    first_bytes,
    may_be_model,
    step_in_file_name,
)
from rankscope.checkpoints.layouts.torch_tables import step_under, table_of
from rankscope.checkpoints.options import Options
from rankscope.errors import RankscopeError, printable

ZIP = b"PK\3\4"
MAGIC = 0x1950A86A20F9469CFC6C.to_bytes(10, "little")  # of torch before 1.6
STEP_KEYS = ("iter_num", "step", "global_step", "step_count", "update_step", "_checkpoint_step")
CONFIG_KEYS = ("model_args", "model_config", "config", "args", "cfg")


def recognises(path: Path) -> bool:
    """Whether the name is that of weights, and the file starts as torch's do.

    One that is empty, as a full disk leaves it, counts too: reading it says so.
    """
    if not may_be_model(path, ".pt", ".pth", ".bin", ".ckpt"):
        return False
    start, size = first_bytes(path, 32)
    return size == 0 or start.startswith(ZIP) or (start.startswith(b"\x80") and MAGIC in start)


def read(path: Path, options: Options) -> Contents:
    """List the tensors of the file.

    Raises
    ------
    RankscopeError
        If the file is damaged, names classes that are not harmless, or holds no tensors.
    """
    found = open_torch(path, trust=options.trust_pickle)
    key, tensors = largest_table(found)
    refuse_pieces(found[key] if key else found, path)
    if not tensors:
        raise RankscopeError("holds no table of tensors by name", path=path)
    skips = tuple(_iter_closed(found[key] if key else found, path))
    config = config_beside(path) or _config(found)
    return contents_of("torch", tensors, config, options, skips=skips)


def _iter_closed(table: Any, path: Path) -> Iterator[Skip]:
    """A skip for each tensor that has no elements on disk, or such that numpy cannot read."""
    for name, leaf in iter_leaves(table):
        if isinstance(leaf, Opaque) and leaf.name.startswith("torch."):
            message = f"is a {printable(leaf.name)}, which is no plain weight"
            yield Skip(str(path), name, "unreadable", message)


def _config(found: Any) -> Mapping[str, Any]:
    """Config of the model where it is stored with it."""
    entries = found if isinstance(found, Mapping) else {}
    tables = (table_of(entries.get(key)) for key in CONFIG_KEYS)
    return next((table for table in tables if table), {})


def step(path: Path) -> Step | None:
    """Step that the object states, or else the name of the file."""
    return step_under(path, *STEP_KEYS) or step_in_file_name(path)


LAYOUT = Layout(
    "torch: a file of torch.save (*.pt, *.pth, *.bin, *.ckpt) with a model's weights in it",
    recognises,
    read,
    step,
    is_file=True,
)
