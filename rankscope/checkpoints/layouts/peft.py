"""PEFT adapters: a folder with ``adapter_config.json``, which need not have its base model.

The Trainer's ``checkpoint-N`` is one where an adapter is trained. PEFT puts an adapter that has a
name of its own in a folder of that name, which then is all that a ``checkpoint-N`` holds.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents, Skip
from rankscope.checkpoints.files.json_file import read_json
from rankscope.checkpoints.layouts import huggingface, lora_files
from rankscope.checkpoints.layouts.base_model import base_folder
from rankscope.checkpoints.layouts.layout import Layout
from rankscope.checkpoints.layouts.lora_config import CONFIG
from rankscope.checkpoints.layouts.lora_on_base import on_base
from rankscope.checkpoints.options import Options

CHECKPOINT = re.compile(r"checkpoint-\d+")


def recognises(folder: Path) -> bool:
    """Whether the folder is an adapter, and not a model beside which an adapter's config lies."""
    adapter = _adapter_in(folder)
    whole = adapter == folder and any((folder / name).is_file() for name in lora_files.WEIGHTS)
    return whole or (adapter is not None and not huggingface.recognises(folder))


def read(folder: Path, options: Options) -> Contents:
    """Read an adapter, on top of the model that it belongs to if that is on this machine.

    Raises
    ------
    RankscopeError
        If a file of either is damaged.
    """
    return contents_with_base("peft", _adapter_in(folder) or folder, options)


def contents_with_base(layout: str, adapter: Path, options: Options) -> Contents:
    """What an adapter and its base model are together; the adapter alone where there is no base."""
    lora, base = lora_files.read_lora(adapter, options), options.base or base_folder(adapter)
    has_base = base is not None and huggingface.recognises(base)
    joined = on_base(lora, huggingface.open_weights(base, options) if base and has_base else {})
    contents = contents_of(
        layout,
        joined.weights,
        {} if base is None else read_json(base / "config.json"),
        options,
        adapters=joined.adapters,
        skips=joined.skips,
    )
    if base is not None and has_base:
        return replace(contents, base=str(base))
    stated = read_json(adapter / CONFIG).get("base_model_name_or_path")
    message = f"its base model {stated!r} is not on this machine: its deltas stand alone"
    return replace(contents, notes=(Skip(str(adapter), "", "base-not-found", message),))


def _adapter_in(folder: Path) -> Path | None:
    """The folder, or the only adapter below a Trainer's checkpoint; None if there is none."""
    if (folder / CONFIG).is_file():
        return folder
    if not CHECKPOINT.fullmatch(folder.name):
        return None
    below = [path.parent for path in folder.glob(f"*/{CONFIG}")]
    return below[0] if len(below) == 1 else None


LAYOUT = Layout(
    "PEFT: adapter_config.json with adapter_model.safetensors or .bin, with or without its base "
    "model",
    recognises,
    read,
)
