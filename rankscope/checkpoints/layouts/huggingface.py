"""Hugging Face folders: ``config.json`` with safetensors weights, whole or in shards.

Covers ``save_pretrained``, the Trainer's ``checkpoint-N`` and this package's trainer, which puts
an ``adapter`` folder and ``gradients.safetensors`` beside the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rankscope.checkpoints.contents import Adapter, Contents, Parameter, Skip
from rankscope.checkpoints.families import heads_of, place_of, plain_name
from rankscope.checkpoints.layouts import lora_files
from rankscope.checkpoints.layouts.json_files import read_json
from rankscope.checkpoints.tensors import FLOATS, StoredTensor, open_tensors
from rankscope.errors import RankscopeError

INDEX, WEIGHTS = "model.safetensors.index.json", "model.safetensors"


def recognises(folder: Path) -> bool:
    """Whether the folder holds the weights of a model."""
    return (folder / WEIGHTS).is_file() or (folder / INDEX).is_file()


def read(folder: Path) -> Contents:
    """Read the headers of one checkpoint.

    Raises
    ------
    RankscopeError
        If a file is damaged or a shard is missing.
    """
    tensors = open_weights(folder)
    skips: list[Skip] = []
    parameters = _parameters(tensors, skips)
    adapters: Mapping[str, Adapter] = {}
    if (folder / "adapter" / lora_files.CONFIG).is_file():
        adapters, adapter_skips = lora_files.read_adapters(folder / "adapter")
        skips += adapter_skips
    return Contents(
        layout="huggingface",
        family="llama-like",
        parameters=lora_files.with_adapters(parameters, adapters, skips),
        gradients=_gradients(folder / "gradients.safetensors"),
        heads=heads_of(read_json(folder / "config.json")),
        skips=tuple(skips),
    )


def open_weights(folder: Path) -> dict[str, StoredTensor]:
    """Tensors of the model by plain name; an index of shards wins if all its files are there.

    Raises
    ------
    RankscopeError
        If a shard is missing, lies outside the folder or lacks a tensor that the index names.
    """
    if not (folder / INDEX).is_file():
        return _plain(open_tensors(folder / WEIGHTS))
    listing = read_json(folder / INDEX).get("weight_map")
    if not isinstance(listing, dict):
        raise RankscopeError("has no weight_map", path=folder / INDEX)
    shards = {shard: _shard(folder, shard) for shard in sorted(set(map(str, listing.values())))}
    if not all(path.is_file() for path in shards.values()) and (folder / WEIGHTS).is_file():
        return _plain(open_tensors(folder / WEIGHTS))
    held = {shard: open_tensors(path) for shard, path in shards.items()}
    for name, shard in listing.items():
        if name not in held[shard]:
            raise RankscopeError(
                f"is not in {shard}, where the index has it", path=folder, tensor=name
            )
    return _plain({name: held[shard][name] for name, shard in listing.items()})


def _shard(folder: Path, name: str) -> Path:
    if Path(name).name != name or name in ("", ".", ".."):
        raise RankscopeError(f"names the shard {name!r}, not a file beside it", path=folder / INDEX)
    return folder / name


def _plain(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    return {plain_name(name): tensor for name, tensor in tensors.items()}


def _parameters(tensors: Mapping[str, StoredTensor], skips: list[Skip]) -> dict[str, Parameter]:
    """The weight matrices among the tensors; vectors and norms have no spectrum."""
    parameters = {}
    for name, tensor in tensors.items():
        place = place_of(name) if len(tensor.shape) == 2 else None
        if place is None:
            continue
        if tensor.dtype in FLOATS:
            parameters[name] = Parameter(name, *place, tensor=tensor)
        else:
            message = f"is stored as {tensor.dtype}, which is no plain weight: give it dequantised"
            skips.append(Skip(tensor.path, name, "quantised", message))
    return parameters


def _gradients(path: Path) -> dict[str, StoredTensor]:
    if not path.is_file():
        return {}
    return {name: tensor for name, tensor in open_tensors(path).items() if len(tensor.shape) == 2}
