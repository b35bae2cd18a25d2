"""Hugging Face folders: safetensors weights, whole or in shards, with their ``config.json``.

Covers ``save_pretrained``, the Trainer's ``checkpoint-N`` and this package's trainer, which puts
an ``adapter`` folder and ``gradients.safetensors`` beside the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Adapter, Contents, Skip
from rankscope.checkpoints.files.json_file import read_json
from rankscope.checkpoints.files.safetensors_file import open_tensors
from rankscope.checkpoints.layouts import lora_files
from rankscope.checkpoints.layouts.layout import Layout
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.tensors import StoredTensor
from rankscope.errors import RankscopeError

INDEX, WEIGHTS = "model.safetensors.index.json", "model.safetensors"


def recognises(folder: Path) -> bool:
    """Whether the folder holds the weights of a model."""
    return (folder / WEIGHTS).is_file() or (folder / INDEX).is_file()


def read(folder: Path, options: Options) -> Contents:
    """Read the headers of one checkpoint.

    Raises
    ------
    RankscopeError
        If a file is damaged or a shard is missing.
    """
    adapters: Mapping[str, Adapter] = {}
    skips: tuple[Skip, ...] = ()
    if (folder / "adapter" / lora_files.CONFIG).is_file():
        adapters, skips = lora_files.read_adapters(folder / "adapter")
    tensors = open_weights(folder)
    gradients = folder / "gradients.safetensors"
    return contents_of(
        "huggingface",
        tensors,
        read_json(folder / "config.json"),
        options,
        adapters=lora_files.fitting(adapters, tensors),
        gradients=open_tensors(gradients) if gradients.is_file() else None,
        skips=(*skips, *lora_files.misfits(adapters, tensors)),
    )


def open_weights(folder: Path) -> dict[str, StoredTensor]:
    """Tensors of the model by name; an index of shards wins if all its files are there.

    Raises
    ------
    RankscopeError
        If a shard is missing, lies outside the folder or lacks a tensor that the index names.
    """
    if not (folder / INDEX).is_file():
        return open_tensors(folder / WEIGHTS)
    listing = read_json(folder / INDEX).get("weight_map")
    if not isinstance(listing, dict):
        raise RankscopeError("has no weight_map", path=folder / INDEX)
    shards = {shard: _shard(folder, shard) for shard in sorted(set(map(str, listing.values())))}
    if not all(path.is_file() for path in shards.values()) and (folder / WEIGHTS).is_file():
        return open_tensors(folder / WEIGHTS)
    held = {shard: open_tensors(path) for shard, path in shards.items()}
    for name, shard in listing.items():
        if name not in held[shard]:
            raise RankscopeError(
                f"is not in {shard}, where the index has it", path=folder, tensor=name
            )
    return {name: held[shard][name] for name, shard in listing.items()}


def _shard(folder: Path, name: str) -> Path:
    if Path(name).name != name or name in ("", ".", ".."):
        raise RankscopeError(f"names the shard {name!r}, not a file beside it", path=folder / INDEX)
    return folder / name


LAYOUT = Layout(
    "Hugging Face: model.safetensors, whole or in shards; also the Trainer's checkpoint-N",
    recognises,
    read,
)
