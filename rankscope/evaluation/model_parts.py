"""The folders of a checkpoint that transformers and peft can open."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rankscope.checkpoints.adapters.base_model import base_folder
from rankscope.checkpoints.adapters.peft_adapter import WEIGHTS as ADAPTER_WEIGHTS
from rankscope.checkpoints.adapters.peft_config import CONFIG as ADAPTER_CONFIG
from rankscope.checkpoints.files.config_files import read_json
from rankscope.checkpoints.layouts import huggingface
from rankscope.checkpoints.links import check_links
from rankscope.checkpoints.run import Checkpoint
from rankscope.durable import MANIFEST
from rankscope.errors import RankscopeError, cannot_be_read

NO_MODEL = "no-model"
CONFIG = "config.json"
LAYOUTS = ("huggingface", "pico")  # with a model in the folder itself
OWN_FORMAT = "rankscope-checkpoint"


@dataclass(frozen=True)
class ModelParts:
    """The folders of a checkpoint's model.

    Attributes
    ----------
    model
        Folder with ``config.json`` and weights.
    adapter
        Folder of the adapter on top of them.
    is_own
        Whether `rankscope train` wrote the checkpoint.
    """

    model: Path
    adapter: Path | None = None
    is_own: bool = False


def model_parts(checkpoint: Checkpoint) -> ModelParts:
    """The folders of a checkpoint's model.

    Raises
    ------
    RankscopeError
        With the reason ``no-model``, if the layout is not one that transformers reads, or a part of
        the model is missing. Or if a file may not be read, or is a link that leads elsewhere.
    """
    try:
        parts = _parts(checkpoint)
        check_links(checkpoint.path, checkpoint.options.within)
    except OSError as error:
        raise cannot_be_read(error, checkpoint.path) from error
    return parts


def _parts(checkpoint: Checkpoint) -> ModelParts:
    if checkpoint.layout == "peft":
        parts = _on_base(checkpoint.path, checkpoint.options.base)
    elif checkpoint.layout in LAYOUTS:
        adapter = checkpoint.path / "adapter"
        has_adapter = (adapter / ADAPTER_CONFIG).is_file()
        own = _is_own(checkpoint.path)
        parts = ModelParts(checkpoint.path, adapter if has_adapter else None, own)
    else:
        raise RankscopeError(
            f"is of the layout {checkpoint.layout}, which has weights but no model to run. Text is "
            "scored by checkpoints of rankscope train, Hugging Face folders and PEFT adapters: "
            "convert it to a folder that transformers opens",
            path=checkpoint.path,
            reason=NO_MODEL,
        )
    if not (parts.model / CONFIG).is_file() or not huggingface.recognises(parts.model):
        raise RankscopeError(
            f"lacks {CONFIG} or the weights beside it, so transformers cannot build the model",
            path=parts.model,
            reason=NO_MODEL,
        )
    return parts


def _is_own(folder: Path) -> bool:
    try:
        return str(read_json(folder / MANIFEST).get("format")).startswith(OWN_FORMAT)
    except RankscopeError:
        return False


def _on_base(folder: Path, given: Path | None) -> ModelParts:
    # A Trainer's checkpoint may hold only the folder of a named adapter.
    adapter = next((path.parent for path in sorted(folder.glob(f"*/{ADAPTER_CONFIG}"))), folder)
    adapter = folder if (folder / ADAPTER_CONFIG).is_file() else adapter
    if not any((adapter / name).is_file() for name in ADAPTER_WEIGHTS):
        raise RankscopeError(
            f"has no {' or '.join(ADAPTER_WEIGHTS)}", path=adapter, reason=NO_MODEL
        )
    base = base_folder(adapter, given)
    if base is None:
        named = read_json(adapter / ADAPTER_CONFIG).get("base_model_name_or_path")
        raise RankscopeError(
            f"is an adapter, but its base model {named!r} is not on this machine: download it, "
            "put it where the adapter's config says, or give its folder as `base`",
            path=adapter,
            reason=NO_MODEL,
        )
    return ModelParts(base, adapter)
