"""Honest results, and what an evaluation reads, as small as they can be."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np

import tests.results
from rankscope.analysis.analyze import analyze_runs
from rankscope.analysis.request import Selection
from rankscope.checkpoints.discovery import survey
from rankscope.evaluation.score_files import PairScores, ScoreFile, write_scores
from rankscope.pipeline.curves import curve_path
from rankscope.results.columns import EVALUATION_FILE, EVALUATION_RECORD
from rankscope.results.record import write_with_record
from rankscope.scoring.blimp import Paradigm
from rankscope.scoring.perplexity import DocumentScores
from tests.analysis.series import Inline
from tests.reliability.fuzzing.honest import as_json, trained_run, trainer_run

SCORES, TEXT = "scores/blimp", "scores/text"


def results(folder: Path) -> None:
    """Two runs, and in ``results`` their analysis, with subspaces, and an evaluation."""
    trained_run(folder / "run")
    trainer_run(folder / "other")
    found = survey([folder / "run", folder / "other"])
    analyze_runs(found, Selection.of(subspaces=1), out=folder / "results", engine=Inline())
    _evaluation(folder / "results")


def _evaluation(out: Path) -> None:
    """A table of scores, the scores themselves, and the record of both."""
    import pandas as pd

    rows = [
        {"run": run, "step": step, "task": "text", "group": "all", "metric": "perplexity",
         "value": 9.0 - step, "ci_low": 1.0, "ci_high": 10.0, "n": 5}
        for run in ("other", "run") for step in (1, 2)
    ]  # fmt: skip
    for step in (1, 2):
        scores = PairScores((Paradigm("uid", "term", "field", 2),), np.array([0.5, -0.25]))
        write_scores(curve_path(out, SCORES, step), ScoreFile("key", step, "bos", 1.0, scores))
    losses, counts = np.array([4.0, 2.0]), np.array([3, 2])
    text = DocumentScores(
        *(losses, counts, counts, counts, losses, counts), ("s", None), ("d", None), True
    )
    write_scores(curve_path(out, TEXT, 1), ScoreFile("key", 1, "bos", 1.0, text))
    buffer = io.BytesIO()
    pd.DataFrame(rows).to_parquet(buffer, index=False)
    curve = {"run": "run", "path": "run", "settings": {"pairs": None}, "prefix": ["bos"]}
    evaluations = [
        {**curve, "task": "blimp", "folder": SCORES, "steps": [1, 2]},
        {**curve, "task": "text", "folder": TEXT, "steps": [1]},
    ]
    record = {"schema_version": 1, "key": "key", "evaluations": evaluations, "skipped": []}
    write_with_record(out / EVALUATION_RECORD, record, {EVALUATION_FILE: buffer.getvalue()})


def older_results(folder: Path) -> None:
    """The results of an older version, whose files have no digests."""
    version = Path(next(iter(tests.results.__path__))) / "version-1"
    shutil.copytree(version, folder / "results")


def tokenizer(folder: Path) -> None:
    """A tokenizer of bytes beside the settings of its model."""
    letters = ["<s>", "</s>", "a", "b", "ab", "Ġ"]
    model = {
        "type": "BPE", "vocab": {one: at for at, one in enumerate(letters)},
        "merges": [["a", "b"]], "unk_token": None, "fuse_unk": False,
    }  # fmt: skip
    added = [
        {"id": at, "content": letters[at], "single_word": False, "lstrip": False,
         "rstrip": False, "normalized": False, "special": True}
        for at in (0, 1)
    ]  # fmt: skip
    stored = {
        "version": "1.0", "added_tokens": added, "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                          "use_regex": True},
        "post_processor": None, "decoder": None, "model": model,
        "truncation": None, "padding": None,
    }  # fmt: skip
    as_json(folder / "tokenizer.json", stored)
    settings = {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "add_bos_token": True}
    as_json(folder / "tokenizer_config.json", settings)
    as_json(folder / "special_tokens_map.json", {"bos_token": "<s>"})
    as_json(folder / "config.json", {"bos_token_id": 0, "eos_token_id": [1]})


def texts(folder: Path) -> None:
    """Documents and minimal pairs, a line each."""
    folder.mkdir(parents=True)
    documents = [{"text": text, "source": "s", "subdomain": "d"} for text in ("ab", "a b\nab")]
    pair = {"sentence_good": "ab", "sentence_bad": "ba", "UID": "uid", "field": "syntax"}
    for name, lines in (("text", documents), ("pairs", [pair, pair])):
        written = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(written)
