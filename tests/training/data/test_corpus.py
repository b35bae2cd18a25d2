from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rankscope.errors import RankscopeError, WrongSettingError
from rankscope.training.config import BatchConfig, DataConfig
from rankscope.training.data.corpus import Corpus, load_corpus
from rankscope.training.data.prepare import prepare_tokens
from rankscope.training.data.prepare_settings import PrepareSettings
from rankscope.training.data.tokenizer import byte_tokenizer, train_bpe

BATCH = BatchConfig(sequences=6, sequence_length=10)


@pytest.fixture
def corpus() -> Corpus:
    ids = np.arange(1000, dtype=np.uint16)
    return Corpus(ids[:700], ids[700:], vocab_size=1000, end_of_document=None, tokenizer=None)


def test_several_documents_are_held_out_whole(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl"
    texts = [chr(97 + i) * 50 for i in range(20)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    corpus = load_corpus(DataConfig(source=str(path), validation_fraction=0.1), BATCH)
    assert len(corpus.validation) == 2 * 51
    assert not set(corpus.training.tolist()) & set(corpus.validation.tolist()) - {256}
    assert corpus.vocab_size == 257
    assert corpus.end_of_document == 256


def test_the_last_part_of_one_document_is_held_out(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("aü" * 500)
    corpus = load_corpus(DataConfig(source=str(path)), BATCH)
    assert (len(corpus.training), len(corpus.validation)) == (1425 + 1, 75 + 1)
    assert corpus.training[-1] == corpus.validation[-1] == corpus.end_of_document
    assert bytes(corpus.validation[:-1].tolist()).decode() == "aü" * 25
    assert corpus.validation_bytes == 75


@pytest.mark.parametrize("tokenizer", ["bytes", "bpe", "file"])
@pytest.mark.parametrize("source", ["book.txt", "docs.jsonl", "copies.jsonl"])
def test_a_text_and_its_prepared_folder_are_the_same_corpus(
    tmp_path: Path, source: str, tokenizer: str
) -> None:
    text = "".join(f"A line of a book, {i} × {i + 1}.\n" for i in range(300))
    documents = [text[i : i + 200] for i in range(0, len(text), 200)]
    (tmp_path / "book.txt").write_text(text)
    for name, texts in (("docs.jsonl", documents), ("copies.jsonl", documents[:1] * 3)):
        (tmp_path / name).write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))
    if tokenizer == "file":
        tokenizer = str(tmp_path / "tokenizer.json")
        Path(tokenizer).write_text(train_bpe(documents[:10], 280).to_str())
    settings = PrepareSettings(
        tokenizer=tokenizer,
        vocab_size=300 if tokenizer == "bpe" else None,
        validation_fraction=0.1,
    )
    prepare_tokens([str(tmp_path / source)], tmp_path / "out", settings=settings)
    config = DataConfig(
        source=str(tmp_path / source),
        tokenizer=tokenizer,
        vocab_size=300,
        validation_fraction=0.1,
    )
    batch = BatchConfig(sequence_length=8)
    loaded = load_corpus(config, batch)
    opened = load_corpus(replace(config, source=str(tmp_path / "out")), batch)
    assert np.array_equal(opened.training, loaded.training)
    assert np.array_equal(opened.validation, loaded.validation)
    assert opened.digest() == loaded.digest() == replace(opened, recorded_digest=None).digest()
    for name in ("vocab_size", "end_of_document", "tokenizer", "validation_bytes"):
        assert getattr(opened, name) == getattr(loaded, name)


@pytest.mark.parametrize("suffix", [".bin", ".npy"])
def test_a_token_file_and_its_prepared_folder_are_the_same_corpus(
    tmp_path: Path, suffix: str
) -> None:
    ids, path = np.arange(1003, dtype="<u2") % 200, tmp_path / f"ids{suffix}"
    ids.tofile(path) if suffix == ".bin" else np.save(path, ids)
    settings = PrepareSettings(vocab_size=200, dtype="uint16")
    prepare_tokens([str(path)], tmp_path / "out", settings=settings)
    loaded = load_corpus(DataConfig(source=str(path), vocab_size=200), BATCH)
    opened = load_corpus(DataConfig(source=str(tmp_path / "out")), BATCH)
    assert opened.digest() == loaded.digest() == replace(opened, recorded_digest=None).digest()
    assert len(opened.validation) == len(loaded.validation) == 50


def test_byte_pairs_are_not_learned_from_held_out_text(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("a" * 900 + "b" * 100)
    data = DataConfig(source=str(path), tokenizer="bpe", vocab_size=300, validation_fraction=0.1)
    corpus = load_corpus(data, BatchConfig(sequence_length=1))
    assert len(corpus.validation) == 101  # its letter was never paired
    assert len(corpus.training) < 100


def test_byte_pairs_are_learned_from_training_documents_alone(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl"
    texts = [f"{chr(97 + i)}" * 200 for i in range(10)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    settings = DataConfig(
        source=str(path), tokenizer="bpe", vocab_size=300, validation_fraction=0.1
    )
    corpus = load_corpus(settings, BatchConfig(sequence_length=4))
    assert len(corpus.validation) == 201  # its letter was never paired
    assert corpus.vocab_size <= 300


@pytest.mark.parametrize("dtype", ["<u2", "uint32", "uint8"])
def test_token_files_are_read_as_they_are(tmp_path: Path, dtype: str) -> None:
    ids = (np.arange(1000) % 200).astype(dtype)
    path = tmp_path / ("ids.bin" if dtype == "<u2" else "ids.npy")
    if dtype == "<u2":
        ids.tofile(path)
    else:
        np.save(path, ids)
    corpus = load_corpus(DataConfig(source=str(path), vocab_size=200), BATCH)
    assert np.array_equal(np.concatenate([corpus.training, corpus.validation]), ids)
    assert corpus.vocab_size == 200


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (np.array([1, 300] * 300, dtype=np.uint16), "token id 300, but data.vocab_size = 200"),
        (np.ones((300, 2), dtype=np.uint16), r"uint16 of shape \(300, 2\)"),
        (np.ones(300, dtype=np.float32), "float32"),
        (np.ones(0, dtype=np.uint16), r"shape \(0,\)"),
        (np.ones(100, dtype=np.uint16), "leaves 5 tokens for validation"),
        (np.array(["a"], dtype=object), "cannot be read as token ids"),
    ],
)
def test_a_token_file_that_cannot_be_learned_from_is_refused(
    tmp_path: Path, ids: np.ndarray, message: str
) -> None:
    path = tmp_path / "ids.npy"
    np.save(path, ids, allow_pickle=True)
    with pytest.raises(RankscopeError, match=message):
        load_corpus(DataConfig(source=str(path), vocab_size=200), BATCH)


@pytest.mark.parametrize("name", ["empty.bin", "broken.npy"])
def test_an_unreadable_token_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"" if "empty" in name else b"not numpy")
    with pytest.raises(RankscopeError, match=name):
        load_corpus(DataConfig(source=str(path)), BATCH)


@pytest.mark.parametrize("name", ["missing.bin", "missing.npy", "missing.txt", "missing", "a.csv"])
def test_a_source_that_is_not_there_is_a_wrong_setting(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.csv").write_text("text\n")
    with pytest.raises(WrongSettingError, match=name):
        load_corpus(DataConfig(source=str(tmp_path / name)), BATCH)


def test_a_header_of_llm_c_is_not_taken_for_tokens(tmp_path: Path) -> None:
    header = np.zeros(256, dtype="<i4")
    header[:3] = 20240520, 1, 400
    path = tmp_path / "train.bin"
    path.write_bytes(header.tobytes() + (np.arange(400) % 200).astype("<u2").tobytes())
    corpus = load_corpus(DataConfig(source=str(path), vocab_size=200), BATCH)
    assert np.concatenate([corpus.training, corpus.validation]).tolist() == [*range(200)] * 2


def test_a_text_may_be_encoded_by_a_given_tokenizer(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl"
    texts = [f"{chr(97 + i)} äö" * 50 for i in range(10)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (tmp_path / "tokenizer.json").write_text(byte_tokenizer().to_str())
    theirs = load_corpus(
        DataConfig(source=str(path), tokenizer=str(tmp_path / "tokenizer.json")), BATCH
    )
    ours = load_corpus(DataConfig(source=str(path)), BATCH)
    assert theirs.digest() == ours.digest()
    assert theirs.validation_bytes == ours.validation_bytes == (ours.validation != 256).sum()


def test_the_digest_shows_other_tokens_and_another_split(corpus: Corpus) -> None:
    ids = np.concatenate([corpus.training, corpus.validation])
    wider = Corpus(ids[:700].astype(np.uint32), ids[700:].astype(np.uint32), 1000, None, None)
    elsewhere = Corpus(ids[:701], ids[701:], 1000, None, None)
    changed = Corpus(ids[:700] + np.uint16(1), ids[700:], 1000, None, None)
    assert wider.digest() == corpus.digest()
    assert len({c.digest() for c in (corpus, elsewhere, changed)}) == 3


@pytest.mark.parametrize("suffix", [".bin", ".npy"])
def test_the_vocabulary_of_an_id_file_is_the_stated_one(tmp_path: Path, suffix: str) -> None:
    ids, path = np.arange(100, dtype="<u2") % 7, tmp_path / f"ids{suffix}"
    ids.tofile(path) if suffix == ".bin" else np.save(path, ids)
    data = DataConfig(source=str(path), vocab_size=50, validation_fraction=0.2)
    assert load_corpus(data, BATCH).vocab_size == 50
