"""DeepSpeed folders: ``global_stepN`` with the weights of one process, as ZeRO-1 and 2 write them.

A pipeline writes a file for each layer, which is whole unless the model is parallel besides. What
ZeRO-3 and model parallelism write is in slices, and refused with what to do.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents
from rankscope.checkpoints.files.json_file import read_json
from rankscope.checkpoints.files.opened_file import Opened, together, under_names
from rankscope.checkpoints.layouts import huggingface, peft
from rankscope.checkpoints.layouts.layout import Layout, Step
from rankscope.checkpoints.layouts.torch_tables import open_table, step_under
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.steps import step_of
from rankscope.checkpoints.tensors import Tensor
from rankscope.errors import RankscopeError

WHOLE, SLICED = "mp_rank_*_model_states.pt", "zero_pp_rank_*_model_states.pt"
LAYERS = "layer_*-model_*-model_states.pt"
LAYER = re.compile(r"layer_\d+-model_(?P<slice>\d+)-model_states\.pt")
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
    config = next(filter(None, (read_json(f / "config.json") for f in (folder, folder.parent))), {})
    opened = _open_weights(states, options)
    return contents_of(
        "deepspeed",
        opened.tensors,
        config,
        options,
        skips=opened.skips,
        notes=opened.notes,
        aside=opened.aside,
    )


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


def _open_weights(folder: Path, options: Options) -> Opened:
    files, layers = sorted(folder.glob(WHOLE)), sorted(folder.glob(LAYERS))
    if not files:
        raise RankscopeError(f"is of ZeRO-3, slices of every weight: {TO_DO}", path=folder)
    several = {match["slice"] for path in layers if (match := LAYER.fullmatch(path.name))}
    if len(several or files) > 1:
        raise RankscopeError(
            f"is of model parallelism, {len(several or files)} files with a slice of every weight "
            "each: merge them with the framework that wrote them",
            path=folder,
            reason="slices",
        )
    if layers:
        return _open_layers(layers, options)
    try:
        return open_table(files[0], options, key="module")
    except RankscopeError as error:
        if error.reason != "empty-weights":
            raise
        raise RankscopeError(
            f"holds no weights, as of ZeRO-3: {TO_DO}", path=files[0], reason=error.reason
        ) from None


def _open_layers(files: list[Path], options: Options) -> Opened:
    """The weights of a model that has a file for each layer, every one of them whole.

    Files are numbered by all layers of the pipeline, embeddings and the like among them. The blocks
    are those whose names occur in most files: they are counted from 0.
    """
    opened = {path: open_table(path, options) for path in files}
    names = {path: frozenset(one.tensors) for path, one in opened.items()}
    (common, count), *_ = Counter(names.values()).most_common(1)
    blocks = [path for path in files if names[path] == common and (count > 1 or len(files) == 1)]
    tensors: dict[str, Tensor] = {}
    for path, one in opened.items():
        place = f"layers.{blocks.index(path)}." if path in blocks else ""
        tensors |= {f"{place}{name}": tensor for name, tensor in one.tensors.items()}
    return together(opened.values(), under_names(tensors))


LAYOUT = Layout(
    "DeepSpeed, ZeRO 1 and 2: global_stepN with mp_rank_00_model_states.pt",
    recognises,
    read,
    step,
)
