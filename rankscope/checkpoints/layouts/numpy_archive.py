"""Arrays by name in one ``.npz`` file, as `numpy.savez` writes them."""

from __future__ import annotations

from pathlib import Path

from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.files.config_files import config_beside
from rankscope.checkpoints.files.file_names import may_be_model, stem_of
from rankscope.checkpoints.files.key_words import are_of_model
from rankscope.checkpoints.files.kinds import DAMAGED, kind_of
from rankscope.checkpoints.files.numpy_file import open_arrays
from rankscope.checkpoints.files.opened_file import Opened, whole
from rankscope.checkpoints.files.training_state import without_training_state
from rankscope.checkpoints.layouts.layout import Layout, step_in_file_name
from rankscope.checkpoints.options import Options
from rankscope.errors import RankscopeError


def recognises(path: Path) -> bool:
    """Whether the file is a zip of arrays that may be a model's, or a damaged ``.npz``."""
    if not may_be_model(path):
        return False
    kind = kind_of(path)
    if kind != "npz":
        return path.suffix.lower() == ".npz" and kind in (*DAMAGED, "zip")
    try:
        arrays, skips = open_arrays(path)
    except RankscopeError:
        return True
    return are_of_model((*arrays, *(skip.tensor for skip in skips)), stem_of(path))


def read(path: Path, options: Options) -> Contents:
    """List the arrays of the file.

    Raises
    ------
    RankscopeError
        If the file is damaged.
    """
    arrays, skips = open_arrays(path)
    kept, states = without_training_state(arrays)
    opened = whole(Opened(kept, tuple(states), skips), str(path))
    return contents_of(
        "numpy",
        opened.tensors,
        config_beside(path),
        options,
        skips=opened.skips,
        aside=opened.aside,
    )


LAYOUT = Layout(
    "numpy: arrays by name in one *.npz file", recognises, read, step_in_file_name, is_file=True
)
