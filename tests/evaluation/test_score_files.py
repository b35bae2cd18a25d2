from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rankscope.errors import RankscopeError
from rankscope.evaluation.score_files import (
    PairScores,
    ScoreFile,
    Scores,
    read_scores,
    write_scores,
)
from rankscope.scoring.blimp import Paradigm
from rankscope.scoring.perplexity import DocumentScores

PAIRS = PairScores(
    (Paradigm("a", "binding", "syntax", 2), Paradigm("“ü”", "", "", 1)),
    np.array([0.1, -np.inf, np.nan]),
)
DOCUMENTS = DocumentScores(
    losses=np.array([1.5, np.nan]),
    tokens=np.array([3, 4]),
    bytes=np.array([9, 9]),
    words=np.array([0, 2]),
    first_losses=np.array([0.5, 1e300]),
    first_tokens=np.array([2, 1]),
    sources=("c4_en", None),
    domains=(None, None),
    is_prefixed=True,
)
KINDS: dict[str, Scores] = {
    "pairs": PAIRS,
    "documents": DOCUMENTS,
    "no-first-windows": replace(DOCUMENTS, first_losses=None, first_tokens=None),
    "no-prefix": replace(DOCUMENTS, is_prefixed=False),
}


def written(folder: Path, scores: Scores) -> tuple[Path, ScoreFile]:
    path, file = folder / "of" / "step.safetensors", ScoreFile("key", 7, "EOS <s>", 0.25, scores)
    write_scores(path, file)
    return path, file


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_is_what_was_written(tmp_path: Path, kind: str) -> None:
    path, file = written(tmp_path, KINDS[kind])
    read = read_scores(path)
    for field in fields(ScoreFile):
        if field.name != "scores":
            assert getattr(read, field.name) == getattr(file, field.name)
    assert type(read.scores) is type(file.scores)
    for field in fields(file.scores):
        found, expected = getattr(read.scores, field.name), getattr(file.scores, field.name)
        np.testing.assert_array_equal(found, expected)
        assert getattr(found, "dtype", None) == getattr(expected, "dtype", None)
    assert repr(read.measures) == repr(file.measures)


def test_what_is_not_finite_is_counted(tmp_path: Path) -> None:
    assert ScoreFile("", 0, "", 0.0, PAIRS).non_finite == 2
    assert ScoreFile("", 0, "", 0.0, DOCUMENTS).non_finite == 1


def test_its_size_is_that_of_pairs_or_of_scored_tokens() -> None:
    assert ScoreFile("", 0, "", 0.0, PAIRS).count == 3
    assert ScoreFile("", 0, "", 0.0, DOCUMENTS).count == 7


def test_two_of_the_same_are_the_same_bytes(tmp_path: Path) -> None:
    one, _ = written(tmp_path / "one", DOCUMENTS)
    other, _ = written(tmp_path / "other", DOCUMENTS)
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("damage", ["absent", "empty", "cut", "bit", "other", "folder", "version"])
def test_a_file_that_is_not_whole_is_refused(tmp_path: Path, damage: str) -> None:
    path, _ = written(tmp_path, PAIRS)
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage == "other":
        save_file({"differences": np.zeros(3)}, path)
    elif damage == "version":
        about = json.dumps({"version": "0", "key": "key"})
        save_file({"differences": np.zeros(3)}, path, metadata={"rankscope": about})
    elif damage == "bit":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage != "absent":
        path.write_bytes(b"" if damage == "empty" else content[:-1])
    with pytest.raises(RankscopeError, match=r"damaged|of version") as caught:
        read_scores(path)
    assert caught.value.path == str(path)


def test_a_file_without_its_vectors_is_refused(tmp_path: Path) -> None:
    path, _ = written(tmp_path, DOCUMENTS)
    arrays = load_file(path)
    del arrays["losses"]
    about = json.dumps(
        {
            "version": "1",
            "key": "k",
            "step": 1,
            "prefix": "",
            "seconds": 1.0,
            "kind": "text",
            "sources": [],
            "domains": [],
            "is_prefixed": True,
        }
    )
    save_file(arrays, path, metadata={"rankscope": about})
    with pytest.raises(RankscopeError, match="losses"):
        read_scores(path)
