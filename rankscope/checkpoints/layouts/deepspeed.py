"""DeepSpeed folders: ``global_stepN`` with the weights of one process, as ZeRO-1 and 2 write them.

A model that was built for a pipeline has a file for each layer, which is whole unless tensors were
sliced too (``layer_02-model_00-model_states.pt`` and no ``model_01``). What ZeRO-3 and model
parallelism write is in slices, and refused with what to do.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents, Skip
from rankscope.checkpoints.families.names import layer_of
from rankscope.checkpoints.files.json_file import read_json
from rankscope.checkpoints.layouts import huggingface, peft
from rankscope.checkpoints.layouts.layout import Layout, Step
from rankscope.checkpoints.layouts.torch_tables import (
    named_tensors,
    open_entries,
    step_under,
    table_of,
    tensors_under,
)
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.steps import step_of
from rankscope.checkpoints.tensors import StoredTensor
from rankscope.errors import RankscopeError

WHOLE, SLICED = "mp_rank_*_model_states.pt", "zero_pp_rank_*_model_states.pt"
PIPELINED = "layer_*-model_states.pt"
LAYER_FILE = re.compile(r"layer_(\d+)-model_(\d+)-model_states\.pt")
TAGS = ("checkpoint", "pytorch_model")  # subfolders that Fabric, Lightning and accelerate put it in
TO_DO = "make whole weights of it with zero_to_fp32.py, which DeepSpeed leaves beside the folder"


def recognises(folder: Path) -> bool:
    """Whether the folder holds the state of a model, and not beside the weights themselves.

    A trainer that saves whole weights keeps this folder in the same checkpoint, to resume from.
    """
    return _states(folder) is not None and not any(
        step_of(around) is not None and (huggingface.recognises(around) or peft.recognises(around))
        for around in folder.parents[:2]
    )


def read(folder: Path, options: Options) -> Contents:
    """Read the headers of one checkpoint.

    Raises
    ------
    RankscopeError
        If the weights are spread over several files, or a file is damaged.
    """
    states = _states(folder) or folder
    tensors, skips, stated = _open_weights(states, options)
    beside = (read_json(f / "config.json") for f in (folder, folder.parent))
    config = next(filter(None, beside), stated)
    return contents_of("deepspeed", tensors, config, options, skips=skips)


def step(folder: Path) -> Step | None:
    """Step in the folder's name; first in the file where the name is of what lies around it."""
    states, named = _states(folder) or folder, step_of(folder)
    files = sorted(states.glob(WHOLE))
    if not files or (named is not None and states == folder):
        return named
    return step_under(files[0], "global_steps") or named


def _states(folder: Path) -> Path | None:
    """The folder of the states: this one, or the one of fixed name in it."""
    for place in (folder, *(folder / tag for tag in TAGS)):
        if any(True for pattern in (WHOLE, SLICED) for _ in place.glob(pattern)):
            return place
    return None


def _open_weights(
    folder: Path, options: Options
) -> tuple[dict[str, StoredTensor], list[Skip], Mapping[str, Any]]:
    """The tensors, what is amiss with some, and what the training says of its model."""
    files, layers = sorted(folder.glob(WHOLE)), sorted(folder.glob(PIPELINED))
    if not files:
        raise _sliced(f"is of ZeRO-3, slices of every weight: {TO_DO}", folder)
    entries = open_entries(files[0], options)
    if len(files) > 1 and not layers:
        raise _sliced(
            f"is of model parallelism, {len(files)} files with a slice of every weight each: "
            "merge them with the framework that wrote them",
            folder,
        )
    if layers:
        tensors, skips = _open_layers(layers, entries.get("mp_world_size"), options)
    else:
        tensors, skips = tensors_under(entries, "module", files[0])
    if not skips and all(0 in tensor.shape for tensor in tensors.values()):
        raise RankscopeError(f"holds no weights, as of ZeRO-3: {TO_DO}", path=files[0])
    return tensors, skips, table_of(entries.get("args"))


def _open_layers(
    files: Sequence[Path], processes: Any, options: Options
) -> tuple[dict[str, StoredTensor], list[Skip]]:
    """The tensors of a model that has a file for each layer, under names with the layer in them."""
    found = {file: LAYER_FILE.fullmatch(file.name) for file in files}
    ranks = {match[2] for match in found.values() if match}
    if len(ranks) > 1 or processes not in (None, 1):
        raise _sliced(
            f"is of model parallelism, {max(len(ranks), 1)} files with a slice of every layer "
            f"({files[0].name}): merge them with the framework that wrote them",
            files[0].parent,
        )
    held, skips = {}, []
    for file, match in found.items():
        if match and (entries := open_entries(file, options)):
            held[int(match[1])], odd = named_tensors(entries, file)
            skips += odd
    return _named_by_layer(held), skips


def _named_by_layer(held: Mapping[int, Mapping[str, StoredTensor]]) -> dict[str, StoredTensor]:
    """Blocks are the files with the most tensors, all of the same names; they count from 0."""
    most = max(held.values(), key=len, default={})
    blocks = [number for number in sorted(held) if held[number].keys() == most.keys()]
    alone = Counter(name for number in held if number not in blocks for name in held[number])
    named = {}
    for number, tensors in held.items():
        for name, tensor in tensors.items():
            if layer_of(name) is not None:
                named[name] = tensor
            elif number in blocks:
                named[f"layers.{blocks.index(number)}.{name}"] = tensor
            else:
                named[name if alone[name] == 1 else f"{number}.{name}"] = tensor
    return named


def _sliced(message: str, path: Path) -> RankscopeError:
    return RankscopeError(message, path=path, reason="slices")


LAYOUT = Layout(
    "DeepSpeed, ZeRO 1 and 2: global_stepN with mp_rank_00_model_states.pt, also GPT-NeoX's with a "
    "file for each layer",
    recognises,
    read,
    step,
)
