"""What kills of ``represent`` leave behind, which runs models: see `tests.reliability.kills`."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

import rankscope as rs
from tests.evaluation.models import DOCUMENTS, new_model, write_tokenizer
from tests.reliability.kills import (
    Options,
    Size,
    Tried,
    Work,
    at_once,
    killed_at_random,
    killed_everywhere,
    killed_within_another,
    row,
)
from tests.reliability.row import Row

KINDS: tuple[Callable[[Path, Size, Work], Tried], ...] = (
    killed_everywhere,
    killed_within_another,
    killed_at_random,
    at_once,
)
SHORT, FULL = Size(stride=16, random=1, pairs=1), Size(stride=1, random=15, pairs=10)
SETTINGS: Options = {"window": 12, "compare": "last"}


def models(folder: Path) -> Path:
    """Write a run of two steps with its tokenizer, and a text."""
    run = folder / "run"
    write_tokenizer(run, {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"})
    model = new_model("llama", num_hidden_layers=1, hidden_size=8)
    for step in (1, 2):
        place = run / f"checkpoint-{step}"
        model.config.save_pretrained(place)
        weights = {name: step * tensor for name, tensor in model.state_dict().items()}
        save_file(weights, place / "model.safetensors", metadata={"format": "pt"})
    lines = [json.dumps({"text": f"{n} {text}"}) for n in range(10) for text in DOCUMENTS[:2]]
    (folder / "novel.jsonl").write_text("\n".join(lines))
    return run


def look(run: Path, out: Path, options: Options) -> None:
    """Look into the models, on one thread: a forked child has no others."""
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rs.represent(run, text=run.parent / "novel.jsonl", out=out, **SETTINGS, **options)


REPRESENT = Work(
    "represent",
    models,
    look,
    {"tokens": 60},
    {"tokens": 40},
    (
        *("representations.csv", "representations.parquet", "representations-skipped.jsonl"),
        *("similarities.csv", "similarities.parquet"),
    ),
)


def section(scratch: Path, is_full: bool) -> Iterator[Row]:
    """The rows of the table of reliability that are about kills of ``represent``."""
    for kind in KINDS:
        yield row(kind(scratch / kind.__name__, FULL if is_full else SHORT, REPRESENT))
