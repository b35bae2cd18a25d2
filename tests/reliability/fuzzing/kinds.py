"""The kinds of files that are read, each with an honest one, its mutations and its reader."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from random import Random

from tests.reliability.fuzzing import (
    bytes_level,
    honest,
    honest_results,
    json_level,
    numpy_level,
    pickle_level,
    readers,
    record_level,
    results_readers,
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
    every
        How many mutants there are for one of ``whole``.
    """

    write: Callable[[Path], None]
    files: str
    mutate: Mutate
    read: Reader = readers.read_checkpoint
    whole: tuple[Reader, ...] = field(default=(readers.analyse,))
    share: float = 1.0
    every: int = 40

    def mutant(self, rng: Random, data: bytes) -> bytes:
        """A mutant of an honest file."""
        mutated = bytes_level.mutated if rng.random() < 0.25 else self.mutate
        try:
            return mutated(rng, data)
        except Exception:  # the second of two mutations may not be able to take the first apart
            return bytes_level.mutated(rng, data)


def _of_run(
    files: str,
    mutate: Mutate,
    read: Reader,
    *,
    write: Callable[[Path], None] = honest.trained_run,
) -> Kind:
    whole = readers.read_run, readers.analyse
    return Kind(write, files, mutate, read, whole, share=0.4, every=20)


RESULTS = (
    *(results_readers.read_results, results_readers.read_recalled, results_readers.diagnose),
    *(results_readers.compare, results_readers.read_own_metric),
)
DRAWN = (
    "loss",
    "performance",
    "per-weights",
    "overlap-weights",
    "update-histograms",
    "merged-rank",
)
OLDER = results_readers.read_only("metrics")
PAGES = (results_readers.write_page, *map(results_readers.draw, DRAWN))


def _of_results(
    files: str,
    mutate: Mutate,
    read: Reader,
    *whole: Reader,
    write: Callable[[Path], None] = honest_results.results,
) -> Kind:
    return Kind(write, f"results/{files}", mutate, read, whole or RESULTS, share=0.25, every=20)


def _of_older(files: str, mutate: Mutate, read: Reader) -> Kind:
    whole = results_readers.read_results, results_readers.read_own_metric
    kind = _of_results(files, mutate, read, *whole, write=honest_results.older_results)
    return replace(kind, share=0.1)


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
    "merges": _of_run("merges/*.safetensors", safetensors_level.mutated, readers.read_merge_files),
    "MANIFEST.json": _of_run("checkpoints/*2/MANIFEST.json", json_level.mutated, readers.read_run),
    "state.json": _of_run(
        "checkpoints/*2/state.json", json_level.mutated, readers.read_run, write=UNLISTED
    ),
    "metrics.jsonl": _of_run("metrics.jsonl", json_level.mutated_lines, readers.read_log),
    "config.toml": _of_run("config.toml", text_level.mutated, readers.read_log),
    "trainer_state.json": _of_run(
        "*/trainer_state.json", json_level.mutated, readers.read_log, write=honest.trainer_run
    ),
    "family.toml": Kind(
        honest.families, "family.toml", text_level.mutated, readers.read_family_file, (), 0.3
    ),
    "store of spectra": _of_results(
        "spectra/*/*.safetensors", store_level.mutated, results_readers.read_store
    ),
    "store of subspaces": _of_results(
        "subspaces/*/*.safetensors", store_level.mutated, results_readers.read_store
    ),
    "store of scores": _of_results(
        "scores/*/*.safetensors", store_level.mutated, results_readers.read_earlier_scores
    ),
    "analysis.json": _of_results(
        "analysis.json", record_level.mutated, results_readers.read_record, *RESULTS, *PAGES
    ),
    "evaluation.json": _of_results(
        "evaluation.json", record_level.mutated, results_readers.read_earlier_scores
    ),
    "skipped.jsonl": _of_results(
        "skipped.jsonl", json_level.mutated_lines, results_readers.read_record
    ),
    "metrics.parquet": _of_results(
        "metrics.parquet",
        table_level.mutated,
        results_readers.read_only("metrics", "restarts"),
        *(*RESULTS, *PAGES),
    ),
    "subspaces.parquet": _of_results(
        "subspaces.parquet", table_level.mutated, results_readers.read_only("subspaces"), *PAGES
    ),
    "evaluation.parquet": _of_results(
        "evaluation.parquet", table_level.mutated, results_readers.read_only("evaluation"), *PAGES
    ),
    "training.csv": _of_results(
        "training.csv", text_level.mutated_cells, results_readers.read_only("training"), *PAGES
    ),
    "older stores": _of_older("spectra/**/*.safetensors", store_level.mutated, OLDER),
    "older analysis.json": _of_older(
        "analysis.json", json_level.mutated, results_readers.read_record
    ),
    "older metrics.parquet": _of_older("metrics.parquet", table_level.mutated, OLDER),
    "tokenizer files": Kind(
        honest_results.tokenizer, "*.json", json_level.mutated, results_readers.read_tokenizer, ()
    ),
    "texts and pairs": Kind(
        honest_results.texts, "*.jsonl", json_level.mutated_lines, results_readers.read_texts, ()
    ),
}
