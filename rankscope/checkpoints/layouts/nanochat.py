"""The files of nanochat: ``model_000600.pt`` with ``meta_000600.json`` beside it.

The optimizer's state is in separate files, ``optim_000600_rank0.pt``, without weights.
"""

from __future__ import annotations

import re
from pathlib import Path

from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.files.config_files import read_json
from rankscope.checkpoints.files.weights_file import open_table, table_of
from rankscope.checkpoints.layouts.layout import Layout, Step
from rankscope.checkpoints.options import Options

NAME = re.compile(r"model_(\d{1,18})\.pt")


def recognises(path: Path) -> bool:
    """Whether the file has such a name and its description is beside it."""
    meta = _meta(path)
    return meta is not None and meta.is_file()


def read(path: Path, options: Options) -> Contents:
    """List the tensors of one checkpoint.

    Raises
    ------
    RankscopeError
        If a file is damaged.
    """
    meta = _meta(path)
    config = {} if meta is None else table_of(read_json(meta).get("model_config"))
    opened = open_table(path, options)
    return contents_of(
        "nanochat",
        opened.tensors,
        config,
        options,
        skips=opened.skips,
        notes=opened.notes,
        aside=opened.aside,
    )


def step(path: Path) -> Step | None:
    """Step in the file's name."""
    match = NAME.fullmatch(path.name)
    return None if match is None else (int(match[1]), "file")


def _meta(path: Path) -> Path | None:
    """The description that belongs to a file with such a name."""
    match = NAME.fullmatch(path.name)
    return None if match is None else path.with_name(f"meta_{match[1]}.json")


LAYOUT = Layout(
    "nanochat: model_000600.pt with meta_000600.json beside it",
    recognises,
    read,
    step,
    is_file=True,
)
