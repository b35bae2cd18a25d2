"""LitGPT folders: ``lit_model.pth`` with ``model_config.yaml``, of pretraining or fine-tuning."""

from __future__ import annotations

from pathlib import Path

from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents, Skip
from rankscope.checkpoints.files.config_files import read_yaml
from rankscope.checkpoints.files.opened_file import Opened
from rankscope.checkpoints.files.weights_file import (
    open_entries,
    open_table,
    step_under,
)
from rankscope.checkpoints.layouts.layout import Layout, Step
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.steps import step_of

WEIGHTS, LORA, CONFIG = "lit_model.pth", "lit_model.pth.lora", "model_config.yaml"


def recognises(folder: Path) -> bool:
    """Whether the folder holds a model of LitGPT, or an adapter."""
    return (folder / WEIGHTS).is_file() or (folder / LORA).is_file()


def read(folder: Path, options: Options) -> Contents:
    """Read the headers of one checkpoint.

    Its LoRA file is left out: the layer for q, k and v has up to three adapters, stacked in one
    pair of factors, and no file says which of them there are.

    Raises
    ------
    RankscopeError
        If a file is damaged.
    """
    opened = Opened({})
    if (folder / WEIGHTS).is_file():
        # Only a training run puts its weights under a key.
        opened = open_table(folder / WEIGHTS, options, key=_key(folder / WEIGHTS, options))
    skips = [*opened.skips]
    if (folder / LORA).is_file():
        message = "a LoRA file of LitGPT is not read: merge it with `litgpt merge_lora`"
        skips.append(Skip(str(folder / LORA), "", "adapter-unsupported", message))
    return contents_of(
        "litgpt",
        opened.tensors,
        read_yaml(folder / CONFIG),
        options,
        skips=skips,
        notes=opened.notes,
        aside=opened.aside,
    )


def _key(path: Path, options: Options) -> str | None:
    return "model" if "model" in open_entries(path, options) else None


def step(folder: Path) -> Step | None:
    """Step in the folder's name, else in the file, where iter_num counts micro-batches."""
    named = step_of(folder)
    if named is None and (folder / WEIGHTS).is_file():
        return step_under(folder / WEIGHTS, "step_count")
    return named


LAYOUT = Layout(
    "LitGPT: lit_model.pth with model_config.yaml, in folders step-00001000",
    recognises,
    read,
    step,
)
