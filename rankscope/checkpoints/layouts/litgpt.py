"""LitGPT folders: ``lit_model.pth`` with ``model_config.yaml``, of pretraining or fine-tuning."""

from __future__ import annotations

from pathlib import Path

from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents, Skip
from rankscope.checkpoints.files.yaml_file import read_yaml
from rankscope.checkpoints.layouts.layout import Layout, Step
from rankscope.checkpoints.layouts.torch_tables import (
    named_tensors,
    open_entries,
    step_under,
    tensors_under,
)
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.steps import step_of
from rankscope.checkpoints.tensors import StoredTensor

WEIGHTS, LORA, CONFIG = "lit_model.pth", "lit_model.pth.lora", "model_config.yaml"


def recognises(folder: Path) -> bool:
    """Whether the folder holds a model of LitGPT, or an adapter."""
    return (folder / WEIGHTS).is_file() or (folder / LORA).is_file()


def read(folder: Path, options: Options) -> Contents:
    """Read the headers of one checkpoint.

    Its LoRA file is left out: the layer that holds q, k and v has up to three adapters, stacked in
    one pair of factors, and which there are is written nowhere beside them.

    Raises
    ------
    RankscopeError
        If a file is damaged.
    """
    tensors, skips = _open_weights(folder / WEIGHTS, options)
    if (folder / LORA).is_file():
        message = "a LoRA file of LitGPT is not read: `litgpt merge_lora` adds it to its model"
        skips.append(Skip(str(folder / LORA), "", "adapter-unsupported", message))
    return contents_of("litgpt", tensors, read_yaml(folder / CONFIG), options, skips=skips)


def _open_weights(path: Path, options: Options) -> tuple[dict[str, StoredTensor], list[Skip]]:
    """The weights, which only a training run puts under a key; none beside a LoRA file alone."""
    if not path.is_file():
        return {}, []
    entries = open_entries(path, options)
    if "model" in entries:
        return tensors_under(entries, "model", path)
    return named_tensors(entries, path)


def step(folder: Path) -> Step | None:
    """Step in the folder's name, else in the file, which counts optimizer steps as step_count.

    Its iter_num counts micro-batches.
    """
    found = step_of(folder)
    if found is None and (folder / WEIGHTS).is_file():
        return step_under(folder / WEIGHTS, "step_count")
    return found


LAYOUT = Layout(
    "LitGPT: lit_model.pth with model_config.yaml, in folders step-00001000",
    recognises,
    read,
    step,
)
