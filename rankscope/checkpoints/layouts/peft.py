"""PEFT adapters: a folder with ``adapter_model.safetensors``, with or without its base model.

The Trainer's ``checkpoint-N`` is such a folder where an adapter is trained. PEFT puts an adapter
with a name of its own into a folder of that name, which is then all that ``checkpoint-N`` holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rankscope.checkpoints.adapters.base_model import base_folder, base_named, missing_base
from rankscope.checkpoints.adapters.peft_adapter import WEIGHTS, misfit, on_base, read_adapter
from rankscope.checkpoints.adapters.peft_config import CONFIG
from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents, Skip
from rankscope.checkpoints.files.config_files import read_json
from rankscope.checkpoints.files.file_names import may_be_model
from rankscope.checkpoints.layouts import huggingface
from rankscope.checkpoints.layouts.layout import Layout
from rankscope.checkpoints.options import Options
from rankscope.errors import RankscopeError, WrongSettingError, printable

OWN_BASE, STATE = "base", "state.json"  # as `rankscope.relora.ReLoRACallback` writes them
CHECKPOINT = re.compile(r"checkpoint-\d+")


def recognises(folder: Path) -> bool:
    """Whether the folder is an adapter, not a model with an adapter's config beside it."""
    adapter = _adapter_in(folder)
    if adapter == folder and _has_weights(folder):
        return True
    return adapter is not None and _is_peft(adapter) and not huggingface.recognises(folder)


def read(folder: Path, options: Options) -> Contents:
    """Read an adapter, on top of its base model if that is on this machine.

    Raises
    ------
    RankscopeError
        If a file of either is damaged, or the given base is not a model.
    """
    adapter = _adapter_in(folder) or folder
    parted, base = read_adapter(adapter, options), base_folder(adapter, options.base)
    has_base = base is not None and huggingface.recognises(base)
    weights = huggingface.open_weights(base, options) if base and has_base else {}
    wrong = misfit(parted, weights) if has_base else ""
    if wrong and options.base is not None:
        message = f"is not the base model of {adapter}: {wrong}; choose another `base`"
        raise WrongSettingError(message, path=base)
    if wrong:
        has_base, weights = False, {}
    joined = on_base(parted, weights)
    contents = contents_of(
        "peft",
        joined.tensors,
        {} if base is None or wrong else read_json(base / "config.json"),
        options,
        adapters=joined.adapters,
        skips=joined.skips,
        notes=(
            *joined.notes,
            *([] if has_base else [missing_base(adapter, base, wrong)]),
            *_others(adapter),
        ),
        aside=joined.aside,
        named=base_named(adapter),
    )
    restarts = _restarts(base) if base == adapter / OWN_BASE else None
    return replace(contents, base=str(base) if base and has_base else None, restarts=restarts)


def _restarts(base: Path) -> int | None:
    """How often adapters were merged into a base that `rankscope.relora` wrote below them."""
    counted = read_json(base / STATE).get("restarts")
    return counted if type(counted) is int and counted >= 0 else None


def _others(adapter: Path) -> Iterator[Skip]:
    """A note on adapters of the same model, which PEFT puts into folders below the unnamed one."""
    below = sorted(path.parent.name for path in adapter.glob(f"*/{CONFIG}"))
    if below:
        one, many = "another adapter is in a folder", f"{len(below)} other adapters are in folders"
        message = (
            f"{one if len(below) == 1 else many} below it, such as "
            f"{printable(below[0], limit=80)}, and not read: give that folder to have it measured"
        )
        yield Skip(str(adapter), "", "other-adapter", message)


def _has_weights(folder: Path) -> bool:
    return any((folder / name).is_file() for name in WEIGHTS)


def _has_others(folder: Path) -> bool:
    """Whether there are other files of weights beside those of an adapter."""
    suffixes = {Path(name).suffix for name in WEIGHTS}
    return any(
        path.suffix in suffixes and may_be_model(path) and path.is_file()
        for path in folder.iterdir()
    )


def _is_peft(folder: Path) -> bool:
    """Whether a config is PEFT's; MLX has a file of the same name beside other files.

    A damaged one counts: reading it shows what is wrong.
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
