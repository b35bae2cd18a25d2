from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rankscope.checkpoints.run import Run
from rankscope.errors import RankscopeError
from rankscope.evaluation.held_out_text import held_out_digest, held_out_documents
from rankscope.training.config import BatchConfig, DataConfig
from rankscope.training.config_file import config_from, to_toml
from rankscope.training.data.corpus import load_corpus
from rankscope.training.data.prepare import prepare_tokens
from rankscope.training.data.prepare_settings import PrepareSettings
from tests.evaluation.models import DOCUMENTS, WINDOW

TEXTS = [f"{i}: {text}" for i in range(8) for text in DOCUMENTS]
BATCH = BatchConfig(sequences=2, sequence_length=WINDOW)


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in TEXTS))
    return path


def run_on(folder: Path, source: Path | str, **settings: object) -> Run:
    """What a run of the trainer leaves behind of its data."""
    config = config_from(
        {
            "data.source": str(source),
            "data.validation_fraction": 0.25,
            "batch.sequence_length": WINDOW,
            **{f"data.{key}": value for key, value in settings.items()},
        }
    )
    corpus = load_corpus(config.data, config.batch)
    folder.mkdir()
    (folder / "config.toml").write_text(to_toml(config))
    if corpus.tokenizer is not None:
        (folder / "tokenizer.json").write_text(corpus.tokenizer)
    recorded = {"data_blake2b": corpus.digest(), "validation_tokens": len(corpus.validation)}
    (folder / "environment.json").write_text(json.dumps(recorded))
    return Run("run", folder, ())


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_they_are_the_documents_that_the_training_did_not_see(
    tmp_path: Path, text_file: Path, tokenizer: str
) -> None:
    run = run_on(tmp_path / "run", text_file, tokenizer=tokenizer, vocab_size=300)
    found = held_out_documents(run)
    assert 0 < len(found) < len(TEXTS)
    assert set(found) < set(TEXTS)
    assert sum(map(len, found)) >= 0.25 * sum(map(len, TEXTS))


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_a_prepared_folder_gives_its_text_back(
    tmp_path: Path, text_file: Path, tokenizer: str
) -> None:
    settings = PrepareSettings(
        tokenizer=tokenizer,
        vocab_size=300 if tokenizer == "bpe" else None,
        validation_fraction=0.25,
    )
    prepare_tokens([str(text_file)], tmp_path / "tokens", settings=settings)
    found = held_out_documents(run_on(tmp_path / "run", tmp_path / "tokens"))
    assert found == held_out_documents(run_on(tmp_path / "other", text_file))


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe"])
def test_of_one_document_it_is_the_end(tmp_path: Path, tokenizer: str) -> None:
    text = "".join(DOCUMENTS) * 20
    (tmp_path / "one.txt").write_text(text)
    run = run_on(tmp_path / "run", tmp_path / "one.txt", tokenizer=tokenizer, vocab_size=300)
    (held_out,) = held_out_documents(run)
    assert text.endswith(held_out)
    assert len(held_out) == round(0.25 * len(text))


def test_a_run_on_token_ids_names_what_is_missing(tmp_path: Path) -> None:
    np.arange(1000, dtype="<u2").tofile(tmp_path / "ids.bin")
    run = run_on(tmp_path / "run", tmp_path / "ids.bin", vocab_size=1000)
    with pytest.raises(RankscopeError, match=r"ids\.bin: holds token ids.*tokenizer\.json.*`text`"):
        held_out_documents(run)


def test_data_that_are_gone_are_named(tmp_path: Path, text_file: Path) -> None:
    run = run_on(tmp_path / "run", text_file)
    digest = held_out_digest(run)
    text_file.unlink()
    with pytest.raises(RankscopeError, match=r"texts\.jsonl: does not exist.*config\.toml"):
        held_out_documents(run)
    assert held_out_digest(run) == digest


@pytest.mark.parametrize("prepared", [False, True], ids=["text", "folder"])
def test_other_data_in_their_place_are_refused(
    tmp_path: Path, text_file: Path, prepared: bool
) -> None:
    def prepare(name: str) -> Path:
        if not prepared:
            return text_file
        prepare_tokens([str(text_file)], tmp_path / name)
        return tmp_path / name

    source = prepare("tokens")
    run = run_on(tmp_path / "run", source)
    longer = "\n".join(json.dumps({"text": text * 3}) for text in TEXTS)
    text_file.write_text(longer)
    if prepared:
        source.rename(tmp_path / "before")
        prepare("again").rename(source)
    with pytest.raises(RankscopeError, match=r"not those that it was trained on.*`text`"):
        held_out_documents(run)


def test_a_relative_path_starts_from_the_working_folder(
    tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = run_on(tmp_path / "run", text_file.name)
    assert held_out_documents(run)
    monkeypatch.chdir(tmp_path / "run")
    with pytest.raises(RankscopeError, match="start in the folder"):
        held_out_documents(run)


def test_the_digest_changes_with_the_text_and_nothing_else(tmp_path: Path, text_file: Path) -> None:
    one, same = run_on(tmp_path / "one", text_file), run_on(tmp_path / "same", text_file)
    more = run_on(tmp_path / "more", text_file, validation_fraction=0.5)
    digests = [held_out_digest(run) for run in (one, same, more)]
    assert digests[0] == digests[1] != digests[2]
    for run in (one, same, more):
        (run.path / "environment.json").unlink()
    unrecorded = [held_out_digest(run) for run in (one, same, more)]
    assert unrecorded[0] == unrecorded[1] != unrecorded[2]


@pytest.mark.parametrize("ask", [held_out_documents, held_out_digest])
def test_what_another_trainer_held_out_is_unknown(
    tmp_path: Path, ask: Callable[[Run], object]
) -> None:
    with pytest.raises(RankscopeError, match=r"has no config\.toml.*`text`"):
        ask(Run("run", tmp_path, ()))


def test_the_language_reference_is_held_out_by_topics(tmp_path: Path) -> None:
    config = DataConfig(source="pydoc_data.topics", validation_fraction=0.1)
    run = run_on(tmp_path / "run", "pydoc_data.topics", validation_fraction=0.1)
    expected = load_corpus(config, BATCH).validation_bytes
    assert sum(len(text.encode()) for text in held_out_documents(run)) == expected
