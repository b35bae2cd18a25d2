"""The kinds of files that are read, each with an honest one, its mutations and its reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random

from tests.reliability.fuzzing import (
    bytes_level,
    honest,
    json_level,
    numpy_level,
    pickle_level,
    readers,
    safetensors_level,
    store_level,
    table_level,
    text_level,
    zip_level,
)
from tests.reliability.fuzzing.readers import Reader
from tests.reliability.fuzzing.zip_level import Mutate

TORCH_ZIP = zip_level.mutation({".pkl": pickle_level.mutated})
UNLISTED = partial(honest.trained_run, manifests=False)  # no digest refuses every mutant
NPZ = zip_level.mutation({".npy": numpy_level.mutated})


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes
    ----------
    write
        Writes an honest folder.
    files
        The files in it that are mutated, as a pattern.
    mutate
        Mutations that know the format; those of bytes are tried in any case.
    read
        What is done with every mutant, and ``whole`` with a few, since it takes longer.
    share
        How many mutants there are, relative to other kinds: about as the reader is fast.
    """

    write: Callable[[Path], None]
    files: str
    mutate: Mutate
    read: Reader = readers.read_checkpoint
    whole: tuple[Reader, ...] = field(default=(readers.analyse,))
    share: float = 1.0

    def mutant(self, rng: Random, data: bytes) -> bytes:
        """A mutant of an honest file."""
        mutated = bytes_level.mutated if rng.random() < 0.25 else self.mutate
        return mutated(rng, data)


def _of_run(
    files: str, mutate: Mutate, *, write: Callable[[Path], None] = honest.trained_run
) -> Kind:
    return Kind(write, files, mutate, readers.read_run, share=0.4)


def _of_results(files: str, mutate: Mutate, *, read: Reader = readers.read_results) -> Kind:
    whole = readers.read_recalled, readers.read_own_metric
    return Kind(honest.results, f"results/{files}", mutate, read, whole, share=0.12)


KINDS: dict[str, Kind] = {
    "safetensors": Kind(honest.model, "model.safetensors", safetensors_level.mutated),
    "safetensors of a process": Kind(honest.shard_files, "shard-*", safetensors_level.mutated),
    "index.json": Kind(honest.sharded, "*.index.json", json_level.mutated),
    "config.json": Kind(honest.model, "config.json", json_level.mutated),
    "adapter_config.json": Kind(honest.adapted, "adapter/*.json", json_level.mutated),
    "adapter_config.json alone": Kind(honest.adapter, "*.json", json_level.mutated),
    "adapter": Kind(honest.adapted, "adapter/*.safetensors", safetensors_level.mutated),
    "torch zip": Kind(honest.torch_model, "pytorch_model.bin", TORCH_ZIP),
    "torch zip of a training": Kind(honest.training_file, "ckpt_1.pt", TORCH_ZIP),
    "torch before 1.6": Kind(honest.torch_before_1_6, "pytorch_model.bin", pickle_level.mutated),
    "DCP metadata": Kind(honest.distributed, ".metadata", pickle_level.mutated),
    "DCP pieces": Kind(honest.distributed, "*.distcp", TORCH_ZIP),
    "npz": Kind(honest.arrays, "*.npz", NPZ),
    "npz, compressed": Kind(partial(honest.arrays, compressed=True), "*.npz", NPZ),
    "model_config.yaml": Kind(honest.litgpt, "model_config.yaml", text_level.mutated),
    "relora_config.json": Kind(honest.guitaricet, "relora_config.json", json_level.mutated),
    "training_state.json": Kind(honest.guitaricet, "training_state.json", json_level.mutated),
    "merges": _of_run("merges/*.safetensors", safetensors_level.mutated),
    "MANIFEST.json": _of_run("checkpoints/*2/MANIFEST.json", json_level.mutated),
    "state.json": _of_run("checkpoints/*2/state.json", json_level.mutated, write=UNLISTED),
    "metrics.jsonl": _of_run("metrics.jsonl", json_level.mutated_lines),
    "config.toml": _of_run("config.toml", text_level.mutated),
    "trainer_state.json": _of_run(
        "*/trainer_state.json", json_level.mutated, write=honest.trainer_run
    ),
    "family.toml": Kind(
        honest.families, "family.toml", text_level.mutated, readers.read_family_file, (), 0.15
    ),
    "store of spectra": _of_results(
        "spectra/*/*.safetensors", store_level.mutated, read=readers.read_store
    ),
    "store of subspaces": _of_results(
        "subspaces/*/*.safetensors", store_level.mutated, read=readers.read_store
    ),
    "analysis.json": _of_results("analysis.json", json_level.mutated),
    "skipped.jsonl": _of_results("skipped.jsonl", json_level.mutated_lines),
    "metrics.parquet": _of_results("metrics.parquet", table_level.mutated),
    "subspaces.parquet": _of_results("subspaces.parquet", table_level.mutated),
    "evaluation.parquet": _of_results("evaluation.parquet", table_level.mutated),
    "training.csv": _of_results("training.csv", text_level.mutated_cells),
    "older results": Kind(
        honest.older_results,
        "results/**/*.safetensors",
        store_level.mutated,
        readers.read_results,
        (),
        0.12,
    ),
}
