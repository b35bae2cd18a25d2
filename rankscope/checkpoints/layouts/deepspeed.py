"""DeepSpeed folders: ``global_stepN`` with the weights of one process, as ZeRO-1 and 2 write them.

A model that was built for a pipeline has a file for each layer, which is whole unless tensors were
split too (``layer_02-model_00-model_states.pt`` without a ``model_01``). ZeRO-3 and model
parallelism write slices, which are refused with what to do.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.families.names import block_of
from rankscope.checkpoints.files.config_files import read_json
from rankscope.checkpoints.files.opened_file import Opened, together, under_names
from rankscope.checkpoints.files.weights_file import (
    open_entries,
    open_table,
    step_under,
    table_of,
)
from rankscope.checkpoints.layouts import huggingface, peft
from rankscope.checkpoints.layouts.layout import Layout, Step
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.slicing.slices_by_name import names_in
from rankscope.checkpoints.steps import step_of
from rankscope.checkpoints.tensors import Tensor
from rankscope.errors import RankscopeError

WHOLE, SLICED = "mp_rank_*_model_states.pt", "zero_pp_rank_*_model_states.pt"
LAYER_FILES = "layer_*-model_*-model_states.pt"
LAYER_FILE = re.compile(r"layer_(\d+)-model_(\d+)-model_states\.pt")
TAGS = ("checkpoint", "pytorch_model")  # subfolders of Fabric, Lightning and accelerate
TO_DO = "make whole weights of it with zero_to_fp32.py, which DeepSpeed leaves beside the folder"


def recognises(folder: Path) -> bool:
    """Whether the folder holds the state of a model, without the whole weights beside it.

    A trainer that saves whole weights keeps this folder in the same checkpoint to resume from.
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
    opened, stated = _open_weights(states, options)
    beside = (read_json(f / "config.json") for f in (folder, folder.parent))
    return contents_of(
        "deepspeed",
        opened.tensors,
        next(filter(None, beside), stated),
        options,
        skips=opened.skips,
        notes=opened.notes,
        aside=opened.aside,
    )


def step(folder: Path) -> Step | None:
    """Step in the folder's name; in the file first, where the name is that of the folder around."""
    states, named = _states(folder) or folder, step_of(folder)
    files = sorted(states.glob(WHOLE))
    if not files or (named is not None and states == folder):
        return named
    return step_under(files[0], "global_steps") or named


def _states(folder: Path) -> Path | None:
    """The folder of the states: this one, or the one of fixed name in it."""
    for place in (folder, *(folder / tag for tag in TAGS)):
        if any(fnmatch(name, form) for name in names_in(place) for form in (WHOLE, SLICED)):
            return place
    return None


def _open_weights(folder: Path, options: Options) -> tuple[Opened, Mapping[str, Any]]:
    """The tensors, and the settings of the training."""
    files, layers = sorted(folder.glob(WHOLE)), sorted(folder.glob(LAYER_FILES))
    if not files:
        raise _sliced(f"holds slices of every weight, as ZeRO-3 saves them: {TO_DO}", folder)
    entries = open_entries(files[0], options)
    if layers:
        opened = _open_layers(layers, entries.get("mp_world_size"), options)
    elif len(files) > 1:
        raise _sliced(_of_ranks(len(files), "weight"), folder)
    else:
        opened = _open_module(files[0], options)
    return opened, table_of(entries.get("args"))


def _open_module(file: Path, options: Options) -> Opened:
    try:
        return open_table(file, options, key="module")
    except RankscopeError as error:
        if error.reason != "empty-weights":
            raise
        raise RankscopeError(
            f"holds empty weights, as ZeRO-3 saves them: {TO_DO}", path=file, reason=error.reason
        ) from None


def _open_layers(files: Sequence[Path], processes: Any, options: Options) -> Opened:
    """The weights of a model with a file for each layer, under names with the layer in them."""
    matches = {file: match for file in files if (match := LAYER_FILE.fullmatch(file.name))}
    ranks = len({match[2] for match in matches.values()})
    if ranks != 1 or processes not in (None, 1):
        count = ranks if type(processes) is not int else max(ranks, processes)
        raise _sliced(_of_ranks(count, "layer"), files[0].parent)
    opened = {
        int(match[1]): open_table(file, options)
        for file, match in matches.items()
        if open_entries(file, options)  # some layers have no weights
    }
    tensors = _named_by_layer({number: one.tensors for number, one in opened.items()})
    return together(opened.values(), under_names(tensors))


def _named_by_layer(held: Mapping[int, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """All tensors, under names in which blocks are numbered from 0.

    Files are numbered by all layers of the pipeline, embeddings and the like included. Blocks are
    the files with the most tensors, all with the same names. A file that is unlike all others keeps
    its names if they contain the number of a layer.
    """
    most = max(held.values(), key=len, default={})
    blocks = [number for number in sorted(held) if held[number].keys() == most.keys()]
    alone = Counter(name for number in held if number not in blocks for name in held[number])
    named: dict[str, Tensor] = {}
    for number, tensors in held.items():
        for name, tensor in tensors.items():
            if number in blocks and (len(blocks) > 1 or not block_of(name)):
                named[f"layers.{blocks.index(number)}.{name}"] = tensor
            else:
                named[name if alone[name] == 1 else f"{number}.{name}"] = tensor
    return named


def _of_ranks(count: int, what: str) -> str:
    return (
        f"has {count} files, each with a slice of every {what}, as model parallelism saves them: "
        "merge them with the framework that wrote them"
    )


def _sliced(message: str, path: Path) -> RankscopeError:
    return RankscopeError(message, path=path, reason="slices")


LAYOUT = Layout(
    "DeepSpeed, ZeRO 1 and 2: global_stepN with mp_rank_00_model_states.pt; also GPT-NeoX with a "
    "file for each layer",
    recognises,
    read,
    step,
)
