"""Which scores are asked for, where each is kept, and on what it depends."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankscope.checkpoints.contents import Parameter
from rankscope.checkpoints.fingerprint import fingerprint
from rankscope.checkpoints.run import Checkpoint, Run
from rankscope.durable import safe_name
from rankscope.evaluation.open_model import OpenOptions
from rankscope.evaluation.score_files import VERSION
from rankscope.evaluation.tasks import Task
from rankscope.results.columns import SCORES_FOLDER
from rankscope.scoring.text_model import TextEncoder

BESIDE = ("*config.json", "*.py")  # what says, beside weights, how to compute with them


@dataclass(frozen=True)
class Series:
    """The scores of one run on one task with the same settings: one file a step.

    Attributes
    ----------
    folder
        Where they are, within the results.
    settings
        All that they depend on but the checkpoint and its tokenizer.
    """

    run: str
    path: str
    task: str
    folder: str
    settings: dict[str, Any]


def series_of(run: Run, task: Task, options: OpenOptions) -> Series:
    """Return where the scores of a run on a task go.

    Raises
    ------
    RankscopeError
        If the run has not got what it would be scored on.
    """
    settings = task.settings(run) | {
        "prefix": options.prefix,
        "precision": options.precision,
        "tokenizer": options.tokenizer,
    }
    name = f"{safe_name(task.name)}-{digest_of(VERSION, settings)[:8]}"
    folder = f"{SCORES_FOLDER}/{safe_name(run.name)}/{name}"
    return Series(run.name, str(run.path.absolute()), task.name, folder, settings)


def score_path(out: Path, folder: str, step: int) -> Path:
    """File of one step in a folder of scores."""
    return out / folder / f"step-{step:08d}.safetensors"


def score_key(series: Series, model: str) -> str:
    """Digest of all that the scores of a checkpoint with this `model_digest` depend on."""
    return digest_of(VERSION, series.settings, model)


def model_digest(checkpoint: Checkpoint, encoder: TextEncoder) -> str:
    """Digest of all that decides what a checkpoint makes of a text.

    That is its tokenizer and the files of its weights, adapter and base model, with the settings
    and the code beside them; not gradients or optimizer states.

    Raises
    ------
    RankscopeError
        If the checkpoint cannot be read.
    """
    parameters = checkpoint.read().parameters.values()
    paths = {Path(path) for parameter in parameters for path in _paths(parameter)}
    for folder in {checkpoint.path, *(path.parent for path in paths)}:
        for pattern in BESIDE:
            paths |= set(folder.glob(pattern))
    return digest_of(encoder.digest, [fingerprint(path) for path in sorted(paths)])


def _paths(parameter: Parameter) -> Iterable[str]:
    if parameter.tensor is not None:
        yield from parameter.tensor.paths
    if parameter.adapter is not None:
        yield from (path for tensor in parameter.adapter.tensors for path in tensor.paths)


def digest_of(*values: object) -> str:
    """Digest of plain values."""
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=16).hexdigest()
