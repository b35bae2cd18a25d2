"""Arrays by name in one ``.npz`` file, as `numpy.savez` writes them."""

from __future__ import annotations

from pathlib import Path

from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.files.numpy_file import open_arrays
from rankscope.checkpoints.layouts.layout import Layout
from rankscope.checkpoints.layouts.single_file import (
    config_beside,
    first_bytes,
    may_be_model,
    step_in_file_name,
)
from rankscope.checkpoints.options import Options

ZIP = b"PK\3\4"


def recognises(path: Path) -> bool:
    """Whether the name is that of weights, and the file is a zip."""
    return may_be_model(path, ".npz") and first_bytes(path, 4)[0] == ZIP


def read(path: Path, options: Options) -> Contents:
    """List the arrays of the file.

    Raises
    ------
    RankscopeError
        If the file is damaged.
    """
    arrays, skips = open_arrays(path)
    return contents_of("numpy", arrays, config_beside(path), options, skips=skips)


LAYOUT = Layout(
    "numpy: arrays by name in one *.npz file", recognises, read, step_in_file_name, is_file=True
)
