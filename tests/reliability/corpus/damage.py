"""How the files of the corpus are damaged: small changes of honest ones."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from rankscope.evaluation.score_files import VERSION
from rankscope.results.record import DIGEST, _digest_of_record
from rankscope.results.vectors import read_vectors, write_vectors
from tests.reliability.fuzzing import honest, honest_results, safetensors_level

Change = Callable[[Path], None]


def changed_json(path: Path, **entries: Any) -> None:
    """A JSON object with other entries."""
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def renamed_tensor(path: Path, name: str) -> None:
    """A safetensors file whose first tensor has another name."""
    metadata, tensors = safetensors_level.tensors_of(*safetensors_level.split(path.read_bytes()))
    tensors[0] = safetensors_level.Stored(name, tensors[0].dtype, tensors[0].shape, tensors[0].data)
    path.write_bytes(safetensors_level.written(metadata, tensors))


def with_entry(path: Path, old: str, new: str) -> None:
    """A safetensors file in whose header a text is another."""
    header, body = safetensors_level.split(path.read_bytes())
    assert old.encode() in header
    header = header.replace(old.encode(), new.encode(), 1)
    path.write_bytes(len(header).to_bytes(8, "little") + header + body)


def with_arrays(path: Path, **arrays: Any) -> None:
    """A safetensors file some of whose tensors are others, by the end of their names."""
    held = load_file(path)
    for end, array in arrays.items():
        name = next(one for one in held if one.endswith(end))
        held[name] = np.asarray(array, np.float32)
    save_file(held, path)


def model_then(change: Callable[[Path], None]) -> Change:
    """A model, whose file of weights is changed."""

    def write(folder: Path) -> None:
        honest.model(folder)
        change(folder / "model.safetensors")

    return write


def adapter_says(**entries: Any) -> Change:
    """A model with an adapter whose config has these entries."""

    def write(folder: Path) -> None:
        honest.adapted(folder)
        changed_json(folder / "adapter" / "adapter_config.json", **entries)

    return write


def merge_with(**arrays: Any) -> Change:
    """A run, in whose merge tensors are others, by the end of their names."""

    def write(folder: Path) -> None:
        honest.trained_run(folder)
        with_arrays(folder / "merges" / "step-00000001.safetensors", **arrays)

    return write


def trainer_state_is(make: Callable[[Path], Any]) -> Change:
    """A run of the Trainer, whose last state file is made anew."""

    def write(folder: Path) -> None:
        honest.trainer_run(folder)
        state = folder / "checkpoint-2" / "trainer_state.json"
        state.unlink()
        make(state)

    return write


def log_is(text: bytes) -> Change:
    """A run with this log."""

    def write(folder: Path) -> None:
        honest.trained_run(folder)
        (folder / "metrics.jsonl").write_bytes(text)

    return write


def results_then(name: str, change: Callable[[Path], object]) -> Change:
    """A run with results, a file of which is changed."""

    def write(folder: Path) -> None:
        honest_results.results(folder)
        change(folder / "results" / name)

    return write


def replaced(path: Path, old: bytes, new: bytes) -> None:
    """A file in which some bytes are others."""
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


def file_of(name: str, content: bytes) -> Change:
    """A folder with one file."""

    def write(folder: Path) -> None:
        folder.mkdir()
        (folder / name).write_bytes(content)

    return write


def with_column(path: Path, name: str, value: Any) -> None:
    """A Parquet table one of whose columns holds another value in every row."""
    import pandas as pd

    table = pd.read_parquet(path)
    table[name] = value
    table.to_parquet(path, index=False)


def recorded_scores(path: Path, **entries: Any) -> None:
    """A record of evaluations whose first says something else, with a digest that fits."""
    record = json.loads(path.read_text())
    record["evaluations"][0] |= entries
    path.write_text(json.dumps(record | {DIGEST: _digest_of_record(record)}))


def paradigm_with(path: Path, **entries: Any) -> None:
    """A file of scores of minimal pairs whose paradigm says something else."""
    vectors, about = read_vectors(path, version=VERSION)
    about["paradigms"][0] |= entries
    write_vectors(path, vectors, about, version=VERSION)


def model_called(name: bytes) -> Change:
    """A folder that holds a run of this name."""

    def write(folder: Path) -> None:
        run = Path(os.fsdecode(os.fsencode(folder) + b"/" + name))
        honest.trainer_run(run)

    return write


def twice_the_same_step(folder: Path) -> None:
    honest.trainer_run(folder)
    shutil.copytree(folder / "checkpoint-2", folder / "checkpoint-02")


def without_an_entry_of_the_index(folder: Path) -> None:
    honest.sharded(folder)
    path = folder / "model.safetensors.index.json"
    listing = json.loads(path.read_text())
    listing["weight_map"].popitem()
    path.write_text(json.dumps(listing))
