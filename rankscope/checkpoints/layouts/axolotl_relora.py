"""Axolotl's ReLoRA: a Trainer's ``checkpoint-N`` with the folders ``relora`` and ``adapter``.

At a step that merges, ``adapter`` is the adapter before the merge; the checkpoint itself has a
second copy. ``relora`` then has the weights with the delta in them, so adding the adapter would
count it twice: the weights are read, and a skip names the adapter. They are written only where the
base is quantised. Where it is not, the weights are nowhere, and the delta is read alone.

At other steps there is no ``adapter``: ``relora`` has the frozen weights since the last merge, and
the adapter in the checkpoint itself belongs on top of them. Steps before the first merge have no
``relora`` and the layout ``peft``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rankscope.checkpoints.adapters.base_model import base_folder
from rankscope.checkpoints.adapters.peft_adapter import on_base, read_adapter, without_factors
from rankscope.checkpoints.adapters.peft_config import CONFIG
from rankscope.checkpoints.adapters.separation import Parted
from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents, Skip
from rankscope.checkpoints.files.config_files import read_json
from rankscope.checkpoints.layouts import huggingface
from rankscope.checkpoints.layouts.layout import Layout
from rankscope.checkpoints.options import Options

FROZEN, BEFORE_MERGE = "relora", "adapter"


def recognises(folder: Path) -> bool:
    """Whether the folder has an adapter and, below it, the weights or the adapter of a merge."""
    live, merged = (folder / CONFIG).is_file(), (folder / BEFORE_MERGE / CONFIG).is_file()
    return (live and merged) or ((live or merged) and huggingface.recognises(folder / FROZEN))


def read(folder: Path, options: Options) -> Contents:
    """Read the headers of one checkpoint.

    Raises
    ------
    RankscopeError
        If a file is damaged or a shard is missing.
    """
    merged = (folder / BEFORE_MERGE / CONFIG).is_file()
    adapter = folder / BEFORE_MERGE if merged else folder
    parted, frozen, skips = Parted(), {}, []
    if huggingface.recognises(folder / FROZEN):
        frozen = huggingface.open_weights(folder / FROZEN, options)
    if merged and frozen:
        message = "is the adapter before its merge: its delta is already in the weights"
        skips.append(Skip(str(adapter), "", "adapter-merged", message))
    else:
        parted = read_adapter(adapter, options)
    if not frozen:
        message = "the weights that it was merged into were not saved: only the delta is read"
        skips.append(Skip(str(adapter), "", "base-missing", message))
    weights, factors = without_factors(frozen)
    joined = on_base(parted, weights)
    return contents_of(
        "axolotl-relora",
        joined.tensors,
        _config(folder, adapter, options),
        options,
        adapters=joined.adapters,
        skips=(*joined.skips, *skips),
        notes=joined.notes,
        aside=(*joined.aside, *factors),
    )


def _config(folder: Path, adapter: Path, options: Options) -> dict[str, Any]:
    """Config of the model: beside the weights, else that of the run or of the base model."""
    places = [folder / FROZEN, folder, folder.parent, base_folder(adapter, options.base)]
    configs = (read_json(place / "config.json") for place in places if place is not None)
    return next(filter(None, configs), {})


LAYOUT = Layout(
    "Axolotl's ReLoRA: a checkpoint-N with the folders relora and adapter",
    recognises,
    read,
)
