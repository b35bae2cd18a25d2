"""DeepSpeed folders: ``global_stepN`` with the weights of one process, as ZeRO-1 and 2 write them.

What ZeRO-3, model and pipeline parallelism write is in slices, and refused with what to do.
"""

from __future__ import annotations

from pathlib import Path

from rankscope.checkpoints.assembly import contents_of
from rankscope.checkpoints.contents import Contents, Skip
from rankscope.checkpoints.files.json_file import read_json
from rankscope.checkpoints.layouts import huggingface, peft
from rankscope.checkpoints.layouts.layout import Layout, Step
from rankscope.checkpoints.layouts.torch_tables import open_entries, step_under, tensors_under
from rankscope.checkpoints.options import Options
from rankscope.checkpoints.steps import step_of
from rankscope.checkpoints.tensors import StoredTensor
from rankscope.errors import RankscopeError

WHOLE, SLICED = "mp_rank_*_model_states.pt", "zero_pp_rank_*_model_states.pt"
PIPELINED = "layer_*-model_states.pt"
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
    tensors, skips = _open_weights(states, options)
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


def _open_weights(folder: Path, options: Options) -> tuple[dict[str, StoredTensor], list[Skip]]:
    files = sorted(folder.glob(WHOLE))
    if not files:
        raise RankscopeError(f"is of ZeRO-3, slices of every weight: {TO_DO}", path=folder)
    if any(True for _ in folder.glob(PIPELINED)):
        raise RankscopeError(
            f"is of pipeline parallelism, a file for each layer ({PIPELINED}): "
            "export the model with the framework that wrote it",
            path=folder,
        )
    if len(files) > 1:
        raise RankscopeError(
            f"is of model parallelism, {len(files)} files with a slice of every weight each: "
            "merge them with the framework that wrote them",
            path=folder,
        )
    tensors, skips = tensors_under(open_entries(files[0], options), "module", files[0])
    if not skips and all(0 in tensor.shape for tensor in tensors.values()):
        raise RankscopeError(f"holds no weights, as of ZeRO-3: {TO_DO}", path=files[0])
    return tensors, skips


LAYOUT = Layout(
    "DeepSpeed, ZeRO 1 and 2: global_stepN with mp_rank_00_model_states.pt",
    recognises,
    read,
    step,
)
