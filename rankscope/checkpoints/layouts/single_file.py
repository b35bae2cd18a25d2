"""What the layouts of single files share: which names are of weights, and the step in a name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rankscope.checkpoints.files.json_file import read_json
from rankscope.checkpoints.files.kinds import OTHERS
from rankscope.checkpoints.layouts.layout import Step
from rankscope.checkpoints.steps import step_in_name
from rankscope.checkpoints.tensors import open_regular
from rankscope.errors import RankscopeError

# What trainers write beside weights: shards and adapters belong to a folder, the rest is no model.
NO_MODEL = re.compile(
    r"optim.*|scheduler.*|scaler.*|rng[_-]state.*|random_states.*|training_args\..*|train\.pt"
    r"|.*[_-]optim[_-]states\.pt|adapter_model\..*|(?:.*_)?gradients\..*|tokenizer\..*"
    r"|.*-\d{5}-of-\d{5}\..*",
    re.IGNORECASE,
)
NO_MODEL_FOLDERS = ("merges", "adapter")  # of a run, and of a checkpoint


def may_be_model(path: Path) -> bool:
    """Whether the name leaves it open that the file holds weights; its content decides then."""
    return (
        path.suffix.lower() not in OTHERS
        and path.parent.name not in NO_MODEL_FOLDERS
        and NO_MODEL.fullmatch(path.name) is None
    )


def first_bytes(path: Path, count: int) -> tuple[bytes, int]:
    """The first bytes of a file, and its size; nothing of what cannot be opened."""
    try:
        with open_regular(path) as (file, size):
            return file.read(count), size
    except (RankscopeError, OSError):
        return b"", 0


def stem_of(path: Path) -> str:
    """Name without its suffix, of which ``.pth.tar`` is one."""
    return path.stem if path.suffix.lower() != ".tar" else Path(path.stem).stem


def config_beside(path: Path) -> Mapping[str, Any]:
    """What the ``config.json`` in the same folder says; empty if there is none."""
    return read_json(path.parent / "config.json")


def step_in_file_name(path: Path) -> Step | None:
    """Step that the name of a file states."""
    step = step_in_name(stem_of(path))
    return None if step is None else (step, "file")
