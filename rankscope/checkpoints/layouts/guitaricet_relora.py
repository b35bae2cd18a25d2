"""Folders of the trainer of the ReLoRA paper, ``Guitaricet/relora``: ``model_N/``.

The wrapped model is saved whole: each module has the frozen weight and the factors side by side,
in the state before a merge of the same step. Its ``relora_config.json`` does not say whether there
is a frozen weight at all (``lora_only``) or whether the scale is trained; the tensors show it.
``n_lora_restarts`` counts the merges; a run that is resumed counts from zero.

A full-rank warm-up writes the same folder without ``relora_config.json``, which is read as a
Hugging Face folder.
"""

from __future__ import annotations

from pathlib import Path

from rankscope.checkpoints.adapters.inner_adapters import Ends, separated
from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.files.config_files import read_json
from rankscope.checkpoints.layouts import huggingface
from rankscope.checkpoints.layouts.layout import Layout
from rankscope.checkpoints.options import Options

CONFIG, STATE = "relora_config.json", "training_state.json"
ENDS = Ends(lora_A=".lora_A.weight", lora_B=".lora_B.weight", scale=".scaling")


def recognises(folder: Path) -> bool:
    """Whether the folder holds the weights of a model and the settings of its adapters."""
    return (folder / CONFIG).is_file() and huggingface.recognises(folder)


def read(folder: Path, options: Options) -> Contents:
    """Read the headers of one checkpoint.

    Raises
    ------
    RankscopeError
        If a file is damaged, or the settings do not state the scale of the adapters.
    """
    settings = read_json(folder / CONFIG)
    opened = huggingface.open_all(folder, options)
    parts = separated(
        opened.tensors,
        ENDS,
        alpha=settings.get("lora_alpha"),
        config=folder / CONFIG,
    )
    return contents_of(
        "relora",
        parts.tensors,
        read_json(folder / "config.json"),
        options,
        adapters=parts.adapters,
        skips=(*opened.skips, *parts.skips),
        notes=opened.notes,
        aside=(*opened.aside, *parts.aside),
        restarts=_restarts(folder),
    )


def _restarts(folder: Path) -> int | None:
    counted = read_json(folder / STATE).get("n_lora_restarts")
    return counted if type(counted) is int and counted >= 0 else None


LAYOUT = Layout(
    "ReLoRA (Guitaricet/relora): relora_config.json beside a model whose layers hold their factors",
    recognises,
    read,
)
