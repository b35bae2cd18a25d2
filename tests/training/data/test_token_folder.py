from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rankscope.errors import RankscopeError
from rankscope.training.config import BatchConfig, DataConfig
from rankscope.training.data.corpus import load_corpus
from rankscope.training.data.prepare import prepare_tokens


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(9):
        (tmp_path / f"{i}.txt").write_text(f"document {i} " * 20)
    prepare_tokens([str(tmp_path)], tmp_path / "out")
    return tmp_path / "out"


def load(folder: Path) -> object:
    return load_corpus(DataConfig(source=str(folder)), BatchConfig(sequence_length=8))


def test_tokens_are_mapped_and_not_read(folder: Path) -> None:
    corpus = load_corpus(DataConfig(source=str(folder)), BatchConfig(sequence_length=8))
    assert isinstance(corpus.training, np.memmap) and isinstance(corpus.validation, np.memmap)
    assert corpus.documents is not None
    assert len(corpus.documents) == 10
    ends = np.concatenate([corpus.training, corpus.validation])[corpus.documents[1:] - 1]
    assert set(ends.tolist()) == {corpus.end_of_document}


def changed(name: str, value: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        sidecar = json.loads((folder / "tokens.json").read_text())
        (folder / "tokens.json").write_text(json.dumps(sidecar | {name: value}))

    return change


def removed(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def shortened(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-2]) and None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (removed("tokens.json"), "out: is a folder without tokens.json"),
        (removed("tokens.bin"), r"tokens\.bin: cannot be read"),
        (removed("documents.npy"), r"documents\.npy: cannot be read"),
        (removed("tokenizer.json"), r"tokenizer\.json: cannot be read"),
        (shortened("tokens.bin"), r"tokens\.bin: holds \d+ bytes, but tokens.json says \d+"),
        (shortened("tokens.json"), r"tokens\.json: cannot be read"),
        (shortened("documents.npy"), r"documents\.npy: cannot be read"),
        (shortened("tokenizer.json"), r"tokenizer\.json: is not the tokenizer"),
        (changed("format", "rankscope-tokens-9"), "'rankscope-tokens-9', but .* reads"),
        (changed("dtype", "float"), "is damaged"),
        (changed("training", 7), "is damaged"),
        (changed("vocab_size", "many"), "is damaged"),
    ],
)
def test_a_damaged_folder_is_one_line(
    folder: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(folder)
    with pytest.raises(RankscopeError, match=message) as error:
        load(folder)
    assert "\n" not in str(error.value)
