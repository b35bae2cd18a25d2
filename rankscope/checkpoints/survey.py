"""`Survey`: the runs in folders, and what became of everything else that is there."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rankscope.checkpoints.contents import Skip
from rankscope.checkpoints.files import weights_file
from rankscope.checkpoints.files.file_names import NO_MODEL
from rankscope.checkpoints.files.safetensors_file import is_own_store
from rankscope.checkpoints.layouts import LAYOUTS
from rankscope.checkpoints.run import Run
from rankscope.errors import cannot_be_read
from rankscope.results.columns import RECORDS, SPECTRA_FOLDER, TABLES

RESULTS = "holds results of rankscope, not checkpoints"
Use = Literal["step", "part", "left out", "unreadable"]

WEIGHTS = (
    *(".pt", ".pth", ".bin", ".ckpt", ".safetensors", ".npz", ".tar", ".zip", ".pkl", ".pickle"),
    *(".h5", ".hdf5", ".keras", ".msgpack", ".gguf", ".ggml", ".onnx", ".nemo", ".tflite", ".pb"),
    *(".mlmodel", ".distcp"),
)
# Files that layouts read beside the weights, and files of the folder of a run.
BESIDE = re.compile(
    r"(?:.*[._-])?config\.(?:json|ya?ml|toml)|config\..*|meta_\d+\.json|.*\.index(?:\..*)?\.json"
    r"|(?:trainer|training)_?state\.json|state\.json|metrics\.jsonl|MANIFEST\.json|\.metadata"
    r"|latest(?:_checkpointed_iteration\.txt)?|alphas\.json"
)


@dataclass(frozen=True)
class Place:
    """A folder or file, and what became of it.

    Attributes
    ----------
    use
        ``step``: it is a checkpoint of a run. ``part``: it belongs to a run or to one of its steps.
        ``left out``: it is not read. ``unreadable``: it is a step that cannot be read.
    reason
        Why it is left out or unreadable.
    """

    path: Path
    use: Use
    run: str = ""
    step: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Survey:
    """The runs in some folders, and what became of everything else in these.

    Attributes
    ----------
    places
        Every folder and file, in order. The files of a checkpoint are not listed one by one, nor
        are those in a folder without checkpoints.
    skips
        Checkpoints that are missing from the runs, and why.
    notes
        What is worth a line although nothing is missing.
    """

    runs: tuple[Run, ...]
    places: tuple[Place, ...]
    skips: tuple[Skip, ...]
    notes: tuple[Skip, ...]


def is_results(folder: Path) -> bool:
    """Whether a folder holds results that rankscope wrote."""
    has_table = any((folder / name).is_file() for name in TABLES)
    has_record = any((folder / name).is_file() for name in RECORDS)
    return has_record and (has_table or (folder / SPECTRA_FOLDER).is_dir())


def fault_of(path: Path) -> str:
    """Why a path that is almost a checkpoint is not one; empty if nothing is known about it."""
    try:
        if path.is_dir():
            os.scandir(path).close()
        flaw = next(filter(None, (known.flaw(path) for known in LAYOUTS.values())), "")
        return flaw or (weights_file.refusal(path) if path.is_file() else "")
    except OSError as error:
        return cannot_be_read(error, path).message


def reason_of(file: Path) -> str:
    """Why a file that is not a checkpoint is not read."""
    refusal = weights_file.refusal(file)
    if refusal:
        return refusal
    if is_own_store(file):
        return RESULTS
    if file.suffix.lower() not in WEIGHTS:
        return "holds no weights"
    if NO_MODEL.fullmatch(file.name):
        return "is what a training keeps beside its weights"
    return "holds no weights, although its name says so"


def is_notable(file: Path) -> bool:
    """Whether a user may miss a file that is not read, by its name or its content."""
    looks = file.suffix.lower() in WEIGHTS and NO_MODEL.fullmatch(file.name) is None
    return (looks and not is_own_store(file)) or bool(weights_file.refusal(file))
