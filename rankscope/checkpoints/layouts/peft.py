"""PEFT adapters: a folder with ``adapter_model.safetensors``, which need not have its base model.

The Trainer's ``checkpoint-N`` is one where an adapter is trained. PEFT puts an adapter that has a
name of its own in a folder of that name, which then is all that a ``checkpoint-N`` holds.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from rankscope.checkpoints.adapters.base_model import base_folder, base_named, missing_base
from rankscope.checkpoints.adapters.peft_adapter import WEIGHTS, misfit, on_base, read_adapter
from rankscope.checkpoints.adapters.peft_config import CONFIG
from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.files.json_file import read_json
from rankscope.checkpoints.layouts import huggingface
from rankscope.checkpoints.layouts.layout import Layout
from rankscope.checkpoints.layouts.single_file import may_be_model
from rankscope.checkpoints.options import Options
from rankscope.errors import RankscopeError, WrongSettingError

CHECKPOINT = re.compile(r"checkpoint-\d+")


def recognises(folder: Path) -> bool:
    """Whether the folder is an adapter, and not a model beside which an adapter's config lies."""
    adapter = _adapter_in(folder)
    if adapter == folder and _has_weights(folder):
        return True
    return adapter is not None and _is_peft(adapter) and not huggingface.recognises(folder)


def read(folder: Path, options: Options) -> Contents:
    """Read an adapter, on top of the model that it belongs to if that is on this machine.

    Raises
    ------
    RankscopeError
        If a file of either is damaged, or what is given as the base is not a model.
    """
    adapter = _adapter_in(folder) or folder
    found, base = read_adapter(adapter, options), base_folder(adapter, options.base)
    has_base = base is not None and huggingface.recognises(base)
    weights = huggingface.open_weights(base, options) if base and has_base else {}
    wrong = misfit(found, weights) if has_base else ""
    if wrong and options.base is not None:
        message = f"is not the base model of {adapter}: {wrong}; choose another `base`"
        raise WrongSettingError(message, path=base)
    if wrong:
        has_base, weights = False, {}
    joined = on_base(found, weights)
    contents = contents_of(
        "peft",
        joined.tensors,
        {} if base is None or wrong else read_json(base / "config.json"),
        options,
        adapters=joined.adapters,
        skips=joined.skips,
        notes=(*joined.notes, *([] if has_base else [missing_base(adapter, base, wrong)])),
        aside=joined.aside,
        named=base_named(adapter),
    )
    return replace(contents, base=str(base) if base and has_base else None)


def _has_weights(folder: Path) -> bool:
    return any((folder / name).is_file() for name in WEIGHTS)


def _has_others(folder: Path) -> bool:
    """Whether other files of weights lie beside those of an adapter: then it is one of many."""
    suffixes = {Path(name).suffix for name in WEIGHTS}
    return any(
        path.suffix in suffixes and may_be_model(path) and path.is_file()
        for path in folder.iterdir()
    )


def _is_peft(folder: Path) -> bool:
    """Whether a config is one of PEFT's; MLX has a file of the same name beside files of its own.

    A damaged one counts: whoever reads it is told.
    """
    try:
        config = read_json(folder / CONFIG)
    except RankscopeError:
        return True
    return "peft_type" in config or "lora_parameters" not in config


def _adapter_in(folder: Path) -> Path | None:
    """The folder, or the only adapter below a Trainer's checkpoint; None if there is none."""
    if (folder / CONFIG).is_file() or (_has_weights(folder) and not _has_others(folder)):
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
