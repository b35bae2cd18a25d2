"""Which training step a checkpoint folder is of, and where that number came from."""

from __future__ import annotations

import re
from pathlib import Path

from rankscope.checkpoints.files.json_file import read_json

# File beside the weights → the key of optimizer steps completed; by trust.
STATE_FILES = {
    "state.json": "step",
    "trainer_state.json": "global_step",
    "training_state.json": "update_step",
}
KEYWORD = re.compile(
    r"(?:^|[^a-z])(?:global_?step|step|iter(?:ation)?|checkpoint|ckpt|update)[-_=]?(\d{1,18})(?!\d)"
)
WHOLE_NAME = re.compile(r"(?:model_)?(\d{1,18})")


def step_of(folder: Path) -> tuple[int, str] | None:
    """Step of a checkpoint and its source, a file's name or ``folder``; None if nothing tells.

    Raises
    ------
    RankscopeError
        If a state file is there and damaged.
    """
    for name, key in STATE_FILES.items():
        step = read_json(folder / name).get(key)
        if type(step) is int and step >= 0:
            return step, name
    step = step_in_name(folder.name)
    return None if step is None else (step, "folder")


def step_in_name(name: str) -> int | None:
    """Step that a folder's name states: ``step-00002000``, ``checkpoint-500``, ``2000``."""
    whole = WHOLE_NAME.fullmatch(name)
    if whole:
        return int(whole[1])
    found = KEYWORD.findall(name.lower())
    return int(found[-1]) if found else None
