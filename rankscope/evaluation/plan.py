"""Which scores are asked for, where each is kept, and on what it depends."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rankscope.atomic import safe_name
from rankscope.checkpoints.contents import Parameter
from rankscope.checkpoints.fingerprint import fingerprint
from rankscope.checkpoints.run import Checkpoint, Run
from rankscope.evaluation.opening import OpenOptions
from rankscope.evaluation.scores import VERSION
from rankscope.evaluation.tasks import Task
from rankscope.scoring.text_model import TextEncoder

SCORES_FOLDER = "scores"


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
    return Series(run.name, str(run.path), task.name, folder, settings)


def score_path(out: Path, folder: str, step: int) -> Path:
    """File of one step in a folder of scores."""
    return out / folder / f"step-{step:08d}.safetensors"


def score_key(series: Series, checkpoint: Checkpoint, encoder: TextEncoder) -> str:
    """Digest of all that a checkpoint's scores depend on.

    Raises
    ------
    RankscopeError
        If the checkpoint cannot be read.
    """
    return digest_of(VERSION, series.settings, encoder.digest, _weights(checkpoint))


def _weights(checkpoint: Checkpoint) -> list[str]:
    """Fingerprints of the files that make the model; not of gradients or optimizer states."""
    parameters = checkpoint.read().parameters.values()
    paths = {path for parameter in parameters for path in _paths(parameter)}
    if checkpoint.path.is_dir():
        paths |= {str(path) for path in checkpoint.path.rglob("*config.json")}
    return [fingerprint(path) for path in sorted(paths)]


def _paths(parameter: Parameter) -> Iterable[str]:
    if parameter.tensor is not None:
        yield from parameter.tensor.paths
    if parameter.adapter is not None:
        yield from (*parameter.adapter.lora_A.paths, *parameter.adapter.lora_B.paths)


def digest_of(*values: object) -> str:
    """Digest of plain values."""
    return hashlib.blake2b(json.dumps(values, sort_keys=True).encode(), digest_size=16).hexdigest()
