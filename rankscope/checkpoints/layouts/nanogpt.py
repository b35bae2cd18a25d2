"""The files of nanoGPT and its forks: a dict of model, optimizer, ``model_args``, ``iter_num``.

The original keeps a single ``ckpt.pt``; series come from forks, which number it: ``ckpt_600.pt``,
``000600_ckpt.pt``, ``state_step000100.pt`` (the last without ``model_args``).
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.files.weights_file import (
    has_entries,
    open_entries,
    open_table,
    step_under,
    table_of,
)
from rankscope.checkpoints.layouts.layout import Layout, Step, step_in_file_name
from rankscope.checkpoints.options import Options

PLAIN, SPEEDRUN = "*ckpt*.pt", "state_step*.pt"


def recognises(path: Path) -> bool:
    """Whether the file has such a name and the entries are there."""
    if fnmatchcase(path.name, SPEEDRUN):
        return has_entries(path, "model", "step")
    return fnmatchcase(path.name, PLAIN) and has_entries(path, "model", "model_args")


def read(path: Path, options: Options) -> Contents:
    """List the tensors of one checkpoint.

    Raises
    ------
    RankscopeError
        If the file is damaged or refused.
    """
    opened = open_table(path, options, key="model")
    config = table_of(open_entries(path, options).get("model_args"))
    return contents_of(
        "nanogpt",
        opened.tensors,
        config,
        options,
        skips=opened.skips,
        notes=opened.notes,
        aside=opened.aside,
    )


def step(path: Path) -> Step | None:
    """Step that the file states; its name where it is refused.

    Unlike that of LitGPT, this iter_num counts optimizer steps.
    """
    return step_under(path, "iter_num", "step") or step_in_file_name(path)


LAYOUT = Layout(
    "nanoGPT and forks: ckpt.pt, ckpt_600.pt, 000600_ckpt.pt with model and model_args; "
    "state_step000100.pt",
    recognises,
    read,
    step,
    is_file=True,
)
